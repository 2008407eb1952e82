//! Connects to the socket of this provider: for `dev`, `check`, the watchdog, tests and benchmarks.

use std::io;

use http::{Request, Response, Uri, header};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tonic::body::Body;
use tower::util::BoxCloneService;

use super::{
    address::SocketAddress, wire::key_management_service_client::KeyManagementServiceClient,
};

/// The scheme and authority that kube-apiserver sends since version 1.32.
const ORIGIN: &str = "http://localhost";

/// One HTTP/2 connection, for the client of any service.
pub type Channel = BoxCloneService<Request<Body>, Response<Incoming>, hyper::Error>;

/// The generated client over one HTTP/2 connection.
pub type KmsClient = KeyManagementServiceClient<Channel>;

/// Connects to `address`. Sends `localhost` as authority, as kube-apiserver does since 1.32.
///
/// # Errors
/// Returns an error when no process listens at `address` or when the peer does not speak HTTP/2.
pub async fn connect(address: &SocketAddress) -> io::Result<KmsClient> {
    Ok(client(channel(address).await?))
}

/// Returns the client that uses `channel`.
#[must_use]
pub fn client(channel: Channel) -> KmsClient {
    KeyManagementServiceClient::with_origin(channel, origin())
}

/// Returns the origin to send: `http://localhost`.
#[must_use]
pub fn origin() -> Uri {
    Uri::from_static(ORIGIN)
}

/// Connects to `address`, for calls that [`KmsClient`] does not have. Give [`origin`] to a client of
/// the channel.
///
/// # Errors
/// Returns an error when no process listens at `address` or when the peer does not speak HTTP/2.
pub async fn channel(address: &SocketAddress) -> io::Result<Channel> {
    let sender = open(address).await?;
    Ok(BoxCloneService::new(tower::service_fn(move |request| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    })))
}

/// Waits until the server at `address` answers. Calls a method that no server has, so that the call
/// reaches no keeper and counts in no metric of real calls.
///
/// # Errors
/// Returns an error when no process listens at `address` or when the answer is not HTTP/2.
pub async fn answers(address: &SocketAddress) -> io::Result<()> {
    let mut sender = open(address).await?;
    let request = Request::post(format!("{ORIGIN}/watchdog/Answers"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Body::empty())
        .map_err(io::Error::other)?;
    sender.send_request(request).await.map(drop).map_err(io::Error::other)
}

async fn open(address: &SocketAddress) -> io::Result<http2::SendRequest<Body>> {
    let stream = match address {
        SocketAddress::File(path) => UnixStream::connect(path).await?,
        SocketAddress::Abstract(name) => UnixStream::connect(format!("\0{name}")).await?,
    };
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    drop(tokio::spawn(connection));
    Ok(sender)
}
