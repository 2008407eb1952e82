//! A look at the server's TLS, for an operator: what was agreed on, and how long the certificate
//! will be believed.

use std::{sync::Arc, time::Duration};

use rustls::{ProtocolVersion, client::danger::ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower::ServiceExt as _;

use super::{
    address::VaultAddress,
    client::{ClientSettings, unreachable},
};
use crate::domain::{
    error::{Code, KmsError},
    time,
};

/// The furthest future that is looked into, in days.
const DAYS_MAX: u32 = 3_650;

const DAY: Duration = Duration::from_hours(24);

/// What a handshake showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The protocol, such as `TLS 1.3`.
    pub protocol: &'static str,
    /// For how many more days the certificate, with those above it, will be believed: at most ten
    /// years. `None` where anybody is believed.
    pub days_left: Option<u32>,
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
    let tls = connector.connect(name.clone(), tcp).await.map_err(|e| failed(&e))?;
    let (_, connection) = tls.get_ref();
    let chain = connection.peer_certificates().unwrap_or_default();
    let verifier = settings.tls.verifier().map_err(internal)?;
    let believed_in = |days| is_believed(&*verifier, chain, &name, now.after(DAY * days));
    Ok(Handshake {
        protocol: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS",
        },
        days_left: (!settings.tls.believes_anybody()).then(|| last(believed_in)),
    })
}

/// Asks the verifier itself, so that all it looks at counts: the certificate, those between, the
/// authority.
fn is_believed(
    verifier: &dyn ServerCertVerifier,
    chain: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    at: time::UnixTime,
) -> bool {
    let since = Duration::from_secs(u64::try_from(at.secs()).unwrap_or_default());
    chain.split_first().is_some_and(|(own, above)| {
        let at = UnixTime::since_unix_epoch(since);
        verifier.verify_server_cert(own, above, name, &[], at).is_ok()
    })
}

/// The last day on which it holds, found by halves; 0 where it does not even hold tomorrow.
fn last(holds: impl Fn(u32) -> bool) -> u32 {
    let (mut good, mut bad) = (0, DAYS_MAX + 1);
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        if holds(middle) { good = middle } else { bad = middle }
    }
    good
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_day_is_found() {
        for expected in [0, 1, 13, DAYS_MAX - 1, DAYS_MAX] {
            assert_eq!(last(|day| day <= expected), expected);
        }
    }
}
