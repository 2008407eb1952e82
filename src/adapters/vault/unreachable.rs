//! Explains why a server was not reached, or why a connection to it was lost.

use std::{error::Error, io};

use super::{
    address::VaultAddress,
    client_pair::noted_on,
    post_quantum::NoHybridGroup,
    tls_error::{self, Explained, explain},
};
use crate::domain::error::{Code, KmsError};

/// Returns the error for the operator. `connecting` tells whether `error` occurred before the
/// connection was established.
pub(super) fn unreachable(
    address: &VaultAddress,
    error: &(dyn Error + 'static),
    connecting: bool,
) -> KmsError {
    if !address.is_tls() && is_not_http(error) {
        return KmsError::new(
            Code::KeeperUnreachable,
            format!("{address} does not answer in HTTP"),
            "write https:// in --vault-address if the server speaks TLS on this port",
        );
    }
    let in_handshake = connecting && address.is_tls();
    let (cause, remedy) = explained(error, in_handshake);
    let what = if connecting { "cannot connect to" } else { "lost the connection to" };
    KmsError::new(Code::KeeperUnreachable, format!("{what} {address}: {cause}"), remedy)
}

/// Returns the error inside `error`. For an I/O error that is its inner error, which `source` would
/// skip.
pub(super) fn inner<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    let io = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    io.map(|inner| -> &(dyn Error + 'static) { inner }).or_else(|| error.source())
}

/// Returns whether the server sent something else than HTTP, for example a TLS alert.
fn is_not_http(error: &(dyn Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |cause| inner(*cause));
    causes.filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(hyper::Error::is_parse)
}

fn explained(error: &(dyn Error + 'static), in_handshake: bool) -> Explained {
    let mut root = error;
    let (mut last_io, mut presented) = (None, None);
    loop {
        presented = noted_on(root).or(presented);
        if let Some(tls) = root.downcast_ref::<rustls::Error>() {
            return explain(tls, presented);
        }
        if root.is::<NoHybridGroup>() {
            return tls_error::no_hybrid_group();
        }
        last_io = root.downcast_ref::<io::Error>().or(last_io);
        match inner(root) {
            Some(inner) => root = inner,
            None => break,
        }
    }
    match last_io.map(io::Error::kind) {
        Some(
            kind @ (io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe),
        ) if in_handshake => {
            let how = if kind == io::ErrorKind::UnexpectedEof { "closed" } else { "reset" };
            (
                format!("the connection was {how} in the TLS handshake"),
                "check that the server listens on this port and speaks TLS; a proxy or balancer whose \
                 server is down, or a firewall, can also end connections like this"
                    .to_owned(),
            )
        }
        Some(io::ErrorKind::TimedOut) => (
            "nothing answers there".to_owned(),
            "check --vault-address, that the keeper runs, and that no firewall on the way to it \
             drops packets"
                .to_owned(),
        ),
        _ => (
            root.to_string(),
            "check --vault-address, that the keeper runs, and the network to it".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use tokio::{
        net::{TcpListener, TcpSocket, TcpStream},
        time::timeout,
    };
    use tower::ServiceExt as _;

    use super::*;
    use crate::adapters::vault::{
        servers::ServerSettings,
        tls::{Identity, TlsSettings, Trust},
    };

    /// Returns a port that drops the packets of further connections: its queue is full and nothing
    /// accepts connections.
    async fn black_hole() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let (address, mut queued) = (listener.local_addr().unwrap(), Vec::new());
        while let Ok(connected) =
            timeout(Duration::from_millis(200), TcpStream::connect(address)).await
        {
            queued.push(connected.unwrap());
        }
        (address, listener, queued)
    }

    #[tokio::test]
    async fn names_the_firewall_if_nothing_answers() {
        let (port, _listener, _queued) = black_hole().await;
        let address = VaultAddress::parse(&format!("https://{port}")).unwrap();
        let settings = ServerSettings {
            addresses: vec![address.clone()],
            tls: TlsSettings {
                trust: Trust::System,
                identity: Identity::None,
                server_name: None,
                require_pq: false,
            },
            connect_timeout: Duration::from_millis(100),
            request_timeout: Duration::from_secs(20),
        };
        let uri = address.join("sys/health").unwrap();
        let error = settings.connector(&[]).oneshot(uri).await.unwrap_err();
        let error = unreachable(&address, &error, true);
        assert_eq!(error.code(), Code::KeeperUnreachable);
        let cause = format!("cannot connect to https://{port}: nothing answers there");
        assert_eq!(error.cause(), cause);
        assert!(error.remedy().contains("firewall"), "{error}");
    }
}
