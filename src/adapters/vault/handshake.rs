//! A look at the server's TLS, for an operator: what was agreed on, and how long the certificate
//! will be believed.

use std::{sync::Arc, time::Duration};

use rustls::ProtocolVersion;
use rustls_pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower::ServiceExt as _;

use super::{
    address::VaultAddress,
    client::{ClientSettings, unreachable},
    post_quantum,
};
use crate::domain::{
    error::{Code, KmsError},
    time,
};

const DAY: Duration = Duration::from_hours(24);

/// What a handshake showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The protocol, such as `TLS 1.3`.
    pub protocol: &'static str,
    /// The key exchange by its name in IANA's registry of TLS groups, as rustls spells it, such as
    /// `X25519MLKEM768`. `None` where it has no name here.
    pub group: Option<&'static str>,
    /// When the first certificate of the chain ends. `None` where anybody is believed.
    pub end: Option<time::UnixTime>,
    /// For how many more whole days that is to come.
    pub days_left: Option<u64>,
}

/// Makes a handshake with the server at `address` and ends the connection.
///
/// # Errors
/// [`Code::KeeperUnreachable`] when nobody listens or is not believed, and
/// [`Code::KeeperTimeout`] after the request time-out.
pub async fn inspect(
    settings: &ClientSettings,
    address: &VaultAddress,
    now: time::UnixTime,
) -> Result<Handshake, KmsError> {
    match timeout(settings.request_timeout, shake(settings, address, now)).await {
        Ok(shaken) => shaken,
        Err(_elapsed) => Err(KmsError::new(
            Code::KeeperTimeout,
            format!("no TLS handshake with {address} in time"),
            "check the network to the keeper, and what stands in front of it",
        )),
    }
}

async fn shake(
    settings: &ClientSettings,
    address: &VaultAddress,
    now: time::UnixTime,
) -> Result<Handshake, KmsError> {
    let failed = |error: &(dyn std::error::Error + 'static)| unreachable(address, error, true);
    let internal = |problem: String| KmsError::new(Code::Internal, problem, "report this");
    let name = match &settings.tls.server_name {
        Some(name) => name.clone(),
        None => ServerName::try_from(address.host().to_owned())
            .map_err(|_invalid| internal("the host is no server name".to_owned()))?,
    };
    let config = settings.tls.client_config().map_err(internal)?;
    // As requests are made, so that of several addresses of a name one is enough.
    let uri = address.join("").map_err(|_invalid| internal("the address is no URL".to_owned()))?;
    let tcp = settings.connector(&[]).oneshot(uri).await.map_err(|e| failed(&e))?.into_inner();
    let connector = TlsConnector::from(Arc::new(config));
    let tls = connector.connect(name.clone(), tcp).await.map_err(|error| {
        let error = error.into();
        let error = if settings.tls.require_pq { post_quantum::named(error) } else { error };
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
