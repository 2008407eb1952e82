//! What carries connections: TCP, with TLS where the address asks for it, or whatever takes its
//! place.

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

use super::{ClientSettings, expiry::ServerCertificates};
use crate::{
    adapters::vault::{post_quantum, tls::TlsSettings, verifier::Verifier},
    domain::time::UnixTime,
};

/// Why there is no connection.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A way to reach servers.
pub trait Dial: fmt::Debug + Send + Sync + 'static {
    /// Connects to the host and port of `to`, by TLS if its scheme is `https`. Where several servers
    /// stand behind the host's name, those in `last` are tried after the others. May take for ever:
    /// the client bounds it. Safe to cancel.
    ///
    /// # Errors
    /// Why no server is reached, or the one that is reached is not trusted.
    fn dial(
        &self,
        to: Uri,
        last: &[SocketAddr],
    ) -> BoxFuture<'static, Result<KeeperConnection, BoxError>>;
}

/// An open connection, on which HTTP/1 is spoken.
pub struct KeeperConnection {
    stream: Pin<Box<dyn Stream>>,
    peer: Option<SocketAddr>,
}

/// The server at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Bytes both ways.
trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

impl KeeperConnection {
    /// A connection over `stream` to `peer`, where that is known.
    pub fn new(stream: impl Read + Write + Send + 'static, peer: Option<SocketAddr>) -> Self {
        Self { stream: Box::pin(stream), peer }
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
        self.stream.as_mut().poll_read(cx, buf)
    }
}

impl Write for KeeperConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
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
        self.stream.as_mut().poll_write_vectored(cx, bufs)
    }
}

impl fmt::Debug for KeeperConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeeperConnection").finish_non_exhaustive()
    }
}

/// The network.
#[derive(Clone, Debug)]
pub(super) struct Network {
    settings: ClientSettings,
    tls: ClientConfig,
    /// What judges the certificates of servers; `None` where none is looked at.
    verifier: Option<Arc<Verifier>>,
    certificates: Arc<ServerCertificates>,
}

impl Network {
    /// The network, as `settings` want it used. `certificates` learns of each handshake.
    ///
    /// # Errors
    /// Why TLS cannot be set up; see [`TlsSettings::client_config`].
    pub(super) fn new(
        settings: &ClientSettings,
        certificates: Arc<ServerCertificates>,
    ) -> Result<Self, String> {
        let (tls, verifier) = if settings.is_tls() {
            (settings.tls.client_config()?, Some(settings.tls.verifier()?))
        } else {
            (TlsSettings::unused()?, None)
        };
        Ok(Self { settings: settings.clone(), tls, verifier, certificates })
    }

    /// When the first certificate of the chain ends that the server at `host` showed on `stream`.
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
            let connected = connector.oneshot(to.clone()).await;
            let stream = match connected {
                Err(error) if network.settings.tls.require_pq => {
                    return Err(post_quantum::named(error));
                }
                connected => connected?,
            };
            if let Some(at) = to.authority().filter(|_| network.verifier.is_some()) {
                network.certificates.shown(at.as_str(), network.end(at.host(), &stream));
            }
            let mut extensions = http::Extensions::new();
            stream.connected().get_extras(&mut extensions);
            let peer = extensions.get::<HttpInfo>().map(HttpInfo::remote_addr);
            Ok(KeeperConnection::new(stream, peer))
        })
    }
}

/// Resolves names by the system, each time anew, and moves the addresses in `last` to the end.
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

/// Sorts `addresses`, which bear no port yet: those in `last` come last, in its order.
fn order(addresses: &mut [SocketAddr], last: &[SocketAddr]) {
    let place = |address: &SocketAddr| last.iter().position(|known| known.ip() == address.ip());
    addresses.sort_by_key(|address| place(address).map_or(0, |place| place + 1));
}

impl ClientSettings {
    /// How TCP connections are made; to the servers in `last` where no other one can be reached.
    pub(in crate::adapters::vault) fn connector(
        &self,
        last: &[SocketAddr],
    ) -> HttpConnector<Resolver> {
        let resolver = Resolver { system: GaiResolver::new(), last: last.to_vec() };
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(15)));
        // Shared out among the addresses of a name, so that a dead one does not take all the time.
        tcp.set_connect_timeout(Some(self.connect_timeout.min(self.request_timeout)));
        tcp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_did_not_serve_are_tried_last_oldest_first() {
        let address = |last: u8| SocketAddr::from(([127, 0, 0, last], 0));
        let mut addresses = [1, 2, 3, 4].map(address);
        order(&mut addresses, &[SocketAddr::from(([127, 0, 0, 3], 8200)), address(1)]);
        assert_eq!(addresses, [2, 4, 3, 1].map(address));
    }
}
