//! Inspects the TLS of a server for `check`: the negotiated parameters, and how long the
//! certificate is valid.

use std::{sync::Arc, time::Duration};

use rustls::ProtocolVersion;
use rustls_pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower::ServiceExt as _;

use super::{
    address::VaultAddress, client_pair, post_quantum, servers::ServerSettings,
    unreachable::unreachable,
};
use crate::domain::{
    error::{Code, KmsError},
    time,
};

const DAY: Duration = Duration::from_hours(24);

/// The result of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The protocol, such as `TLS 1.3`.
    pub protocol: &'static str,
    /// The key exchange by its name in IANA's registry of TLS groups, in the spelling of rustls,
    /// such as `X25519MLKEM768`. `None` if rustls has no name for it.
    pub group: Option<&'static str>,
    /// When the chain stops being valid. `None` if certificates are not verified.
    pub end: Option<time::UnixTime>,
    /// The number of whole days until then.
    pub days_left: Option<u64>,
}

/// Makes a TLS handshake with the server at `address` and closes the connection.
///
/// # Errors
/// Returns [`Code::KeeperUnreachable`] if no server listens or the server is not trusted, and
/// [`Code::KeeperTimeout`] after the request time-out.
pub async fn inspect(
    settings: &ServerSettings,
    address: &VaultAddress,
    now: time::UnixTime,
) -> Result<Handshake, KmsError> {
    match timeout(settings.request_timeout, handshake(settings, address, now)).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(KmsError::new(
            Code::KeeperTimeout,
            format!("the TLS handshake with {address} did not finish in time"),
            "check the network to the keeper, and what stands in front of it",
        )),
    }
}

async fn handshake(
    settings: &ServerSettings,
    address: &VaultAddress,
    now: time::UnixTime,
) -> Result<Handshake, KmsError> {
    let failed = |error: &(dyn std::error::Error + 'static)| unreachable(address, error, true);
    let internal = |problem: String| KmsError::new(Code::Internal, problem, "report this");
    let name = match &settings.tls.server_name {
        Some(name) => name.clone(),
        None => ServerName::try_from(address.host().to_owned())
            .map_err(|_invalid| internal("the host is not a valid server name".to_owned()))?,
    };
    let config = settings.tls.client_config().map_err(internal)?;
    // Use the connector of requests: it tries all addresses of a name.
    let uri = address
        .join("")
        .map_err(|_invalid| internal("the address is not a valid URL".to_owned()))?;
    let tcp = settings.connector(&[]).oneshot(uri).await.map_err(|e| failed(&e))?.into_inner();
    let connector = TlsConnector::from(Arc::new(config));
    let tls = connector.connect(name.clone(), tcp).await.map_err(|error| {
        let error = client_pair::note(error.into(), settings.tls.identity.presented());
        let error = if settings.tls.require_pq {
            post_quantum::name_missing_hybrid_group(error)
        } else {
            error
        };
        failed(error.as_ref())
    })?;
    let (_, connection) = tls.get_ref();
    let chain = connection.peer_certificates().unwrap_or_default();
    let verifier = settings.tls.verifier().map_err(internal)?;
    let end = verifier.end(chain, &name);
    Ok(Handshake {
        protocol: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS",
        },
        group: connection.negotiated_key_exchange_group().and_then(|group| group.name().as_str()),
        end,
        days_left: end.map(|end| end.since(now).as_secs().div_euclid(DAY.as_secs())),
    })
}
