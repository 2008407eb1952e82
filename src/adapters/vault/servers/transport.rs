//! Establishes connections: TCP, with TLS for `https` addresses. Tests replace it by another
//! [`Dial`].

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{
    Connected, Connection as Described, HttpConnector, HttpInfo,
    dns::{GaiResolver, Name},
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tower::{Service, ServiceExt as _};

use super::{ServerSettings, expiry::ServerCertificates};
use crate::{
    adapters::vault::{
        client_pair::{Presented, note, note_io},
        post_quantum,
        tls::TlsSettings,
        verifier::Verifier,
    },
    domain::time::UnixTime,
};

/// The reason why no connection was established.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connects to servers.
pub trait Dial: fmt::Debug + Send + Sync + 'static {
    /// Connects to the host and port of `to`, with TLS if its scheme is `https`. If the host name
    /// has several addresses, tries those in `last` after the others. Needs no time limit of its
    /// own, because its caller sets one. Safe to cancel.
    ///
    /// # Errors
    /// Returns why no server was reached, or why the reached server is not trusted.
    fn dial(
        &self,
        to: Uri,
        last: &[SocketAddr],
    ) -> BoxFuture<'static, Result<KeeperConnection, BoxError>>;
}

/// An open connection to the keeper for HTTP/1.
pub struct KeeperConnection {
    stream: Pin<Box<dyn Stream>>,
    peer: Option<SocketAddr>,
    /// The client certificate of this connection. Noted on its errors, because a server of TLS 1.3
    /// refuses a client certificate after the handshake.
    presented: Option<Presented>,
}

/// The address of the server at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// A stream of bytes in both directions.
trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

impl KeeperConnection {
    /// Creates a connection over `stream`. `peer` is the server's address, if it is known.
    pub fn new(stream: impl Read + Write + Send + 'static, peer: Option<SocketAddr>) -> Self {
        Self { stream: Box::pin(stream), peer, presented: None }
    }
}

impl Described for KeeperConnection {
    fn connected(&self) -> Connected {
        match self.peer {
            Some(peer) => Connected::new().extra(Peer(peer)),
            None => Connected::new(),
        }
    }
}

impl Read for KeeperConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let presented = self.presented;
        self.stream.as_mut().poll_read(cx, buf).map_err(|error| note_io(error, presented))
    }
}

impl Write for KeeperConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let presented = self.presented;
        self.stream.as_mut().poll_write(cx, buf).map_err(|error| note_io(error, presented))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let presented = self.presented;
        self.stream.as_mut().poll_flush(cx).map_err(|error| note_io(error, presented))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let presented = self.presented;
        self.stream.as_mut().poll_write_vectored(cx, bufs).map_err(|e| note_io(e, presented))
    }
}

impl fmt::Debug for KeeperConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeeperConnection").finish_non_exhaustive()
    }
}

/// Connects over the real network.
#[derive(Clone, Debug)]
pub(super) struct Network {
    settings: ServerSettings,
    tls: ClientConfig,
    /// Verifies the certificates of servers. `None` without TLS.
    verifier: Option<Arc<Verifier>>,
    certificates: Arc<ServerCertificates>,
}

impl Network {
    /// Creates the network for `settings`. Reports the certificates of each handshake to
    /// `certificates`.
    ///
    /// # Errors
    /// Returns why TLS cannot be set up; see [`TlsSettings::client_config`].
    pub(super) fn new(
        settings: &ServerSettings,
        certificates: Arc<ServerCertificates>,
    ) -> Result<Self, String> {
        let (tls, verifier) = if settings.is_tls() {
            (settings.tls.client_config()?, Some(settings.tls.verifier()?))
        } else {
            (TlsSettings::unused()?, None)
        };
        Ok(Self { settings: settings.clone(), tls, verifier, certificates })
    }

    /// Returns when the chain that the server at `host` presented on `stream` stops being valid.
    fn end<T>(&self, host: &str, stream: &MaybeHttpsStream<T>) -> Option<UnixTime> {
        let MaybeHttpsStream::Https(stream) = stream else { return None };
        let name = match &self.settings.tls.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.trim_matches(['[', ']'])).ok()?.to_owned(),
        };
        let chain = stream.inner().get_ref().1.peer_certificates()?;
        self.verifier.as_ref()?.end(chain, &name)
    }
}

impl Dial for Network {
    fn dial(
        &self,
        to: Uri,
        last: &[SocketAddr],
    ) -> BoxFuture<'static, Result<KeeperConnection, BoxError>> {
        let mut builder =
            HttpsConnectorBuilder::new().with_tls_config(self.tls.clone()).https_or_http();
        if let Some(name) = self.settings.tls.server_name.clone() {
            builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        let connector = builder.enable_http1().wrap_connector(self.settings.connector(last));
        let network = self.clone();
        Box::pin(async move {
            let presented = network.settings.tls.identity.presented();
            let connected = connector.oneshot(to.clone()).await;
            let connected = connected.map_err(|error| note(error, presented));
            let stream = match connected {
                Err(error) if network.settings.tls.require_pq => {
                    return Err(post_quantum::name_missing_hybrid_group(error));
                }
                connected => connected?,
            };
            if let Some(at) = to.authority().filter(|_| network.verifier.is_some()) {
                network.certificates.shown(at.as_str(), network.end(at.host(), &stream));
            }
            let mut extensions = http::Extensions::new();
            stream.connected().get_extras(&mut extensions);
            let peer = extensions.get::<HttpInfo>().map(HttpInfo::remote_addr);
            Ok(KeeperConnection { presented, ..KeeperConnection::new(stream, peer) })
        })
    }
}

/// Resolves names with the system's resolver for each connection, and moves the addresses in `last`
/// to the end.
#[derive(Clone, Debug)]
pub(in crate::adapters::vault) struct Resolver {
    system: GaiResolver,
    last: Vec<SocketAddr>,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (resolved, last) = (self.system.call(name), self.last.clone());
        Box::pin(async move {
            let mut addresses: Vec<_> = resolved.await?.collect();
            order(&mut addresses, &last);
            Ok(addresses.into_iter())
        })
    }
}

/// Sorts `addresses` so that those in `last` come last, in the order of `last`. Compares without
/// ports, because resolved addresses have no port yet.
fn order(addresses: &mut [SocketAddr], last: &[SocketAddr]) {
    let place = |address: &SocketAddr| last.iter().position(|known| known.ip() == address.ip());
    addresses.sort_by_key(|address| place(address).map_or(0, |place| place + 1));
}

impl ServerSettings {
    /// Returns the connector for TCP. It connects to the servers in `last` only if no other server
    /// can be reached.
    pub(in crate::adapters::vault) fn connector(
        &self,
        last: &[SocketAddr],
    ) -> HttpConnector<Resolver> {
        let resolver = Resolver { system: GaiResolver::new(), last: last.to_vec() };
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(15)));
        // The library divides this time among the addresses of a name, so that a dead address does
        // not use all of it.
        tcp.set_connect_timeout(Some(self.connect_timeout.min(self.request_timeout)));
        tcp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_servers_that_did_not_serve_last_and_the_oldest_of_them_first() {
        let address = |last: u8| SocketAddr::from(([127, 0, 0, last], 0));
        let mut addresses = [1, 2, 3, 4].map(address);
        order(&mut addresses, &[SocketAddr::from(([127, 0, 0, 3], 8200)), address(1)]);
        assert_eq!(addresses, [2, 4, 3, 1].map(address));
    }
}
