//! One connection to the agent.

use std::{io, path::Path};

use http::{Request as HttpRequest, Response, Uri};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, body::Body, metadata::MetadataValue};
use tower::util::BoxCloneService;

use super::wire::spiffe_workload_api_client::SpiffeWorkloadApiClient;

/// The authority of each request. The agent ignores it.
const ORIGIN: &str = "http://localhost";

/// The metadata that each request must have. It keeps other programs from being tricked into
/// forwarding a request (SPIFFE Workload Endpoint standard, section 4.1).
pub(super) const MARK: &str = "workload.spiffe.io";

/// The largest answer, in bytes. An answer holds all SVIDs and the trust bundles of the process.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

type Client =
    SpiffeWorkloadApiClient<BoxCloneService<HttpRequest<Body>, Response<Incoming>, hyper::Error>>;

/// A connection. Dropping it closes it and ends its requests.
pub(super) struct Connection {
    pub(super) client: Client,
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    /// Connects to the agent at `socket`. The caller limits the time.
    ///
    /// # Errors
    /// When no process accepts the connection.
    pub(super) async fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        // A failure of the connection ends its requests with an error.
        let driver = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
        let service = tower::service_fn(move |request| {
            let mut sender = sender.clone();
            async move { sender.send_request(request).await }
        });
        let origin = Uri::from_static(ORIGIN);
        let client = Client::with_origin(BoxCloneService::new(service), origin)
            .max_decoding_message_size(ANSWER_MAX);
        Ok(Self { client, _driver: driver })
    }
}

/// Returns the request with `message` and the metadata that the agent requires.
pub(super) fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(MARK, MetadataValue::from_static("true"));
    request
}
