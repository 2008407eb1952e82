//! What carries connections: TCP, with TLS where the address asks for it, or whatever takes its
//! place.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connected, Connection as Described, HttpConnector};
use tower::ServiceExt as _;

use super::ClientSettings;
use crate::adapters::vault::tls::TlsSettings;

/// Why there is no connection.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A way to reach servers.
pub trait Dial: fmt::Debug + Send + Sync + 'static {
    /// Connects to the host and port of `to`, by TLS if its scheme is `https`. May take for ever:
    /// the client bounds it. Safe to cancel.
    ///
    /// # Errors
    /// Why nobody is reached, or not believed.
    fn dial(&self, to: Uri) -> BoxFuture<'static, Result<Connection, BoxError>>;
}

/// An open connection, on which HTTP/1 is spoken.
pub struct Connection(Pin<Box<dyn Stream>>);

/// Bytes both ways.
trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

impl Connection {
    /// A connection over `stream`.
    pub fn new(stream: impl Read + Write + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }
}

impl Described for Connection {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, buf)
    }
}

impl Write for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write_vectored(cx, bufs)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// The network.
#[derive(Clone, Debug)]
pub(super) struct Network(HttpsConnector<HttpConnector>);

impl Network {
    /// The network, as `settings` want it used.
    ///
    /// # Errors
    /// Why TLS cannot be set up; see [`TlsSettings::client_config`].
    pub(super) fn new(settings: &ClientSettings) -> Result<Self, String> {
        let mut builder = HttpsConnectorBuilder::new()
            .with_tls_config(if settings.is_tls() {
                settings.tls.client_config()?
            } else {
                TlsSettings::unused()?
            })
            .https_or_http();
        if let Some(name) = settings.tls.server_name.clone() {
            builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        Ok(Self(builder.enable_http1().wrap_connector(settings.connector())))
    }
}

impl Dial for Network {
    fn dial(&self, to: Uri) -> BoxFuture<'static, Result<Connection, BoxError>> {
        let dialled = self.0.clone().oneshot(to);
        Box::pin(async move { Ok(Connection::new(dialled.await?)) })
    }
}

impl ClientSettings {
    /// How TCP connections are made.
    pub(in crate::adapters::vault) fn connector(&self) -> HttpConnector {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(15)));
        // Shared out among the addresses of a name, so that a dead one does not take all the time.
        tcp.set_connect_timeout(Some(self.connect_timeout.min(self.request_timeout)));
        tcp
    }
}
