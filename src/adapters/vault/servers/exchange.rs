//! Sends one request to one endpoint and reads its answer.

use std::{fmt, future::pending, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request as HttpRequest, header,
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::{connections::Http, failure::Failure, transport::Peer};
use crate::{
    adapters::vault::{
        address::VaultAddress, key_path::Namespace, refusal::Refusal, unreachable::unreachable,
    },
    domain::{
        error::{Code, KmsError},
        secret::Secret,
        time::UnixTime,
    },
};

/// The largest accepted answer, in bytes. A key with ten thousand versions takes about 200 KiB.
const ANSWER_MAX: usize = 1_048_576;

/// The upper bound for the wait in a `Retry-After` header, which can have any value.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

const USER_AGENT: &str = concat!("vault-kube-kms/", env!("CARGO_PKG_VERSION"));

/// The cluster state of an answer, as opaque text. With these headers, a node that has not reached
/// this state forwards the request to the active node.
const INDEX: HeaderName = HeaderName::from_static("x-vault-index");
const INCONSISTENT: HeaderName = HeaderName::from_static("x-vault-inconsistent");
const FORWARD: HeaderValue = HeaderValue::from_static("forward-active-node");

/// A request. It holds secrets, so it does not implement `Debug`.
#[derive(Clone)]
pub(in crate::adapters::vault) struct Request<'a> {
    pub(in crate::adapters::vault) method: Method,
    /// The path below `/v1/`, made of validated parts.
    pub(in crate::adapters::vault) path: &'a str,
    pub(in crate::adapters::vault) namespace: &'a Namespace,
    pub(in crate::adapters::vault) token: Option<&'a Secret>,
    /// The JSON body. Its memory is zeroed when the last copy is dropped.
    pub(in crate::adapters::vault) body: Option<Bytes>,
}

/// The type of an expected answer. A body of another shape was not sent by the keeper.
pub(in crate::adapters::vault) trait Expected: DeserializeOwned {
    /// Returns whether a body of this shape is an answer even with the error status `status`.
    fn is_answer_with(_status: u16) -> bool {
        false
    }
}

/// The answer to a request.
pub(in crate::adapters::vault) struct Answer<T> {
    /// The endpoint that gave it.
    pub(in crate::adapters::vault) endpoint: usize,
    /// The HTTP status.
    pub(in crate::adapters::vault) status: u16,
    /// The parsed body.
    pub(in crate::adapters::vault) value: T,
    /// The server's time, if it sent `Date`.
    pub(in crate::adapters::vault) date: Option<UnixTime>,
    /// The cluster state of the answer, if the server sent it.
    pub(in crate::adapters::vault) index: Option<HeaderValue>,
}

/// An answer before it is parsed. It can have any status, and any server can have sent it.
pub(super) struct Raw {
    pub(super) status: u16,
    pub(super) body: Zeroizing<Vec<u8>>,
    headers: HeaderMap,
}

/// The time for one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// How long the request may wait for a connection.
    pub(super) sent_within: Duration,
    /// How long the answer may take, with the wait for a connection.
    pub(super) most: Duration,
    /// Whether the caller had little time left, so that a time-out says nothing about the server.
    pub(super) is_short: bool,
}

/// The result of one request.
pub(super) struct Exchanged {
    pub(super) outcome: Result<Raw, Failure>,
    /// The address of the connected server. `None` without a connection.
    pub(super) peer: Option<SocketAddr>,
}

/// Sends `request` to `address` and reads the answer, within `limit` and up to [`ANSWER_MAX`]
/// bytes. Sends nothing without time.
pub(super) async fn exchange(
    http: &Http,
    address: &VaultAddress,
    request: &Request<'_>,
    index: Option<HeaderValue>,
    limit: Limit,
) -> Exchanged {
    if limit.sent_within.is_zero() {
        return Exchanged {
            outcome: Err(Failure::Unsent(late(address, limit, false))),
            peer: None,
        };
    }
    let mut request = match http_request(address, request, index) {
        Ok(request) => request,
        Err(error) => return Exchanged { outcome: Err(Failure::Unsent(error)), peer: None },
    };
    let connection = capture_connection(&mut request);
    let answered = tokio::select! {
        biased;
        answered = timeout(limit.most, round_trip(http, address, request)) => answered.ok(),
        () = without_connection(&connection, limit.sent_within), if limit.sent_within < limit.most => None,
    };
    let connected = connection.connection_metadata().is_some();
    let outcome = answered.unwrap_or_else(|| {
        // Without a connection, the request cannot have reached a server.
        let failure = if connected { Failure::Lost } else { Failure::Unsent };
        Err(failure(late(address, limit, connected)))
    });
    Exchanged { outcome, peer: peer(&connection) }
}

/// Ends after `most` if there is no connection by then. The request must then not be sent any more.
async fn without_connection(connection: &CaptureConnection, most: Duration) {
    sleep(most).await;
    if connection.connection_metadata().is_some() {
        pending::<()>().await;
    }
}

async fn round_trip(
    http: &Http,
    address: &VaultAddress,
    request: HttpRequest<Full<Bytes>>,
) -> Result<Raw, Failure> {
    let response = http.request(request).await.map_err(|error| {
        let connecting = error.is_connect();
        let failure = if connecting { Failure::Unsent } else { Failure::Lost };
        failure(unreachable(address, &error, connecting))
    })?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_MAX)
        .collect()
        .await
        .map_err(|error| Failure::Lost(unreachable(address, error.as_ref(), false)))?;
    // The HTTP library does not zero its buffers. This copy is zeroed.
    let body = Zeroizing::new(Vec::from(body.to_bytes()));
    Ok(Raw { status: parts.status.as_u16(), body, headers: parts.headers })
}

fn http_request(
    address: &VaultAddress,
    request: &Request<'_>,
    index: Option<HeaderValue>,
) -> Result<HttpRequest<Full<Bytes>>, KmsError> {
    let internal = |what: &'static str| KmsError::new(Code::Internal, what, "report this");
    let uri = address.join(request.path).map_err(|_source| internal("a path is not valid"))?;
    let mut built = HttpRequest::builder()
        .method(request.method.clone())
        .uri(uri)
        .header(header::USER_AGENT, USER_AGENT)
        .header("x-vault-request", "true");
    if !request.namespace.as_str().is_empty() {
        built = built.header("x-vault-namespace", request.namespace.as_str());
    }
    if let Some(token) = request.token {
        let mut value = HeaderValue::from_str(token.expose())
            .map_err(|_source| internal("the token is not a header value"))?;
        value.set_sensitive(true);
        built = built.header("x-vault-token", value);
    }
    if let Some(index) = index {
        built = built.header(INDEX, index).header(INCONSISTENT, FORWARD);
    }
    built
        .body(Full::new(request.body.clone().unwrap_or_default()))
        .map_err(|_source| internal("a request could not be built"))
}

impl Raw {
    /// Classifies an answer: the expected answer, a refusal by the keeper, a redirect, or an answer
    /// of an intermediary. This is the only place that reads a body.
    pub(super) fn judged<T: Expected>(
        self,
        endpoint: usize,
        address: &VaultAddress,
    ) -> Result<Answer<T>, Failure> {
        let (status, headers) = (self.status, &self.headers);
        let is_success = (200..300).contains(&status);
        if is_success || T::is_answer_with(status) {
            // Treat a success without a body as JSON `null`.
            let body: &[u8] = if self.body.is_empty() { b"null" } else { &self.body };
            // The parser's message can quote the body, so it is not passed on.
            if let Ok(value) = serde_json::from_slice(body) {
                let (date, index) = (date(headers), headers.get(INDEX).cloned());
                return Ok(Answer { endpoint, status, value, date, index });
            }
        }
        if matches!(status, 301..=303 | 307 | 308) {
            let location = text(headers, &header::LOCATION).map(str::to_owned);
            return Err(Failure::redirected(address, status, location));
        }
        let retry_after = retry_after(headers);
        let refusal =
            if is_success { None } else { Refusal::read(status, retry_after, &self.body) };
        Err(refusal.map_or_else(
            || {
                let kind = text(headers, &header::CONTENT_TYPE);
                Failure::intermediary(address, status, kind, retry_after, &self.body)
            },
            Failure::Refused,
        ))
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Returns the server address of a captured connection.
fn peer(connection: &CaptureConnection) -> Option<SocketAddr> {
    let mut extensions = Extensions::new();
    connection.connection_metadata().as_ref()?.get_extras(&mut extensions);
    extensions.get::<Peer>().map(|peer| peer.0)
}

fn late(address: &VaultAddress, limit: Limit, connected: bool) -> KmsError {
    let millis = if connected { limit.most } else { limit.sent_within }.as_millis();
    if limit.is_short {
        return KmsError::new(
            Code::DeadlineExceeded,
            format!("only {millis} ms of the caller's time were left for a request to {address}"),
            "check the number of waiting calls and the keeper's load",
        );
    }
    let (what, remedy) = if connected {
        ("no answer from", "check the keeper's load and the network to it")
    } else {
        ("no connection to", "check --vault-address and the network to the keeper")
    };
    KmsError::new(Code::KeeperTimeout, format!("{what} {address} within {millis} ms"), remedy)
}

/// Returns the error for an answer that has the right shape and contradicts itself.
pub(in crate::adapters::vault) fn unreadable(why: &str) -> KmsError {
    KmsError::new(
        Code::KeeperAnswer,
        format!("the keeper's answer cannot be used: {why}"),
        "check that --vault-address is a Vault or OpenBao server, and check proxies in front of it",
    )
}

/// Serializes `body` to JSON. The memory is zeroed when the last copy is dropped.
pub(in crate::adapters::vault) fn json(body: &impl serde::Serialize) -> Result<Bytes, KmsError> {
    // Large enough for a seed and its associated data: growing would leave copies in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(4_096));
    serde_json::to_writer(&mut *bytes, body).map_err(|_source| {
        KmsError::new(Code::Internal, "a body could not be written", "report this")
    })?;
    Ok(Bytes::from_owner(bytes))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn date(headers: &HeaderMap) -> Option<UnixTime> {
    let time = httpdate::parse_http_date(text(headers, &header::DATE)?).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(UnixTime::from_secs(i64::try_from(since.as_secs()).ok()?))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = text(headers, &header::RETRY_AFTER)?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_wait_that_a_server_asks_for_is_a_minute_at_most() {
        for (value, wait) in [
            ("3", Some(3)),
            ("61", Some(60)),
            ("18446744073709551615", Some(60)),
            ("18446744073709551616", None),
            ("-1", None),
            ("Sun, 29 Nov 2026 07:00:00 GMT", None),
        ] {
            let headers = [(header::RETRY_AFTER, HeaderValue::from_static(value))];
            let read = retry_after(&headers.into_iter().collect());
            assert_eq!(read, wait.map(Duration::from_secs), "{value}");
        }
    }
}
