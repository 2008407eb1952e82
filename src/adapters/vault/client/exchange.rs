//! One request to one endpoint, and its answer.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use zeroize::Zeroizing;

use super::dial::Dialler;
pub(in crate::adapters::vault) use crate::adapters::vault::unreachable::unreachable;
use crate::{
    adapters::vault::{address::VaultAddress, key_path::Namespace, refusal::Refusal, wire},
    domain::{
        error::{Code, KmsError},
        secret::Secret,
        time::{Monotonic, UnixTime},
    },
    ports::telemetry::KeeperOperation,
};

/// Largest answer, in bytes. A key with ten thousand versions takes about 200 KiB.
const ANSWER_MAX: usize = 1_048_576;

const USER_AGENT: &str = concat!("vault-kube-kms/", env!("CARGO_PKG_VERSION"));

/// Which state of the cluster an answer was of. Opaque; what it is sent with asks that a node that
/// has not reached it passes the request on.
const INDEX: HeaderName = HeaderName::from_static("x-vault-index");
const INCONSISTENT: HeaderName = HeaderName::from_static("x-vault-inconsistent");
const FORWARD: HeaderValue = HeaderValue::from_static("forward-active-node");

/// The library's client; its connections are shared by all endpoints.
pub(super) type Http = Client<Dialler, Full<Bytes>>;

/// How a request may be repeated when it is not known whether it was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters::vault) enum Repeat {
    /// It changes nothing: a read, a wrap, an unwrap, a renewal.
    Freely,
    /// Once: a login, which may use up a secret ID and writes a lease.
    Once,
    /// Never: what a wrapping token wraps can be taken out once.
    Never,
}

/// Which endpoint a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters::vault) enum At {
    /// Any that serves.
    Any,
    /// This endpoint first.
    Endpoint(usize),
    /// This endpoint, for what it says by itself.
    Alone(usize),
}

/// One request. It holds secrets, so it has no `Debug`.
#[derive(Clone)]
pub(in crate::adapters::vault) struct Call<'a> {
    pub(in crate::adapters::vault) operation: KeeperOperation,
    pub(in crate::adapters::vault) method: Method,
    /// Below `/v1/`, from validated parts.
    pub(in crate::adapters::vault) path: &'a str,
    pub(in crate::adapters::vault) at: At,
    pub(in crate::adapters::vault) namespace: &'a Namespace,
    pub(in crate::adapters::vault) token: Option<&'a Secret>,
    /// JSON, zeroed once it was sent.
    pub(in crate::adapters::vault) body: Option<Bytes>,
    pub(in crate::adapters::vault) deadline: Monotonic,
    pub(in crate::adapters::vault) repeat: Repeat,
}

/// An answer, of whatever status.
pub(in crate::adapters::vault) struct Answer {
    /// Whose it is.
    pub(in crate::adapters::vault) endpoint: usize,
    body: Zeroizing<Vec<u8>>,
    pub(super) status: u16,
    /// The server's clock, where it sent `Date`.
    pub(in crate::adapters::vault) date: Option<UnixTime>,
    /// The state of the cluster that it is of.
    pub(super) index: Option<HeaderValue>,
    retry_after: Option<Duration>,
    location: Option<String>,
}

/// Why there is no success.
#[derive(Debug)]
pub(in crate::adapters::vault) enum Failure {
    /// Nothing was sent: no connection.
    Unsent(KmsError),
    /// It was sent, or may have been, and no whole answer came.
    Lost(KmsError),
    /// An answer that was no success.
    Refused(Refusal),
}

/// Sends `call` to `address`, that of `endpoint`, and reads the answer. Bounded in size; the caller
/// bounds the time.
pub(super) async fn exchange(
    http: Arc<Http>,
    (endpoint, address): (usize, &VaultAddress),
    call: &Call<'_>,
    index: Option<HeaderValue>,
) -> Result<Answer, Failure> {
    let request = request(address, call, index).map_err(Failure::Unsent)?;
    let response = http.request(request).await.map_err(|error| {
        let connecting = error.is_connect();
        let told = unreachable(address, &error, connecting);
        if connecting { Failure::Unsent(told) } else { Failure::Lost(told) }
    })?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_MAX)
        .collect()
        .await
        .map_err(|error| Failure::Lost(unreachable(address, error.as_ref(), false)))?;
    Ok(Answer {
        endpoint,
        // The library's own buffers are beyond reach; ours are zeroed.
        body: Zeroizing::new(Vec::from(body.to_bytes())),
        status: parts.status.as_u16(),
        date: date(&parts.headers),
        index: parts.headers.get(INDEX).cloned(),
        retry_after: retry_after(&parts.headers),
        location: text(&parts.headers, &header::LOCATION).map(str::to_owned),
    })
}

fn request(
    address: &VaultAddress,
    call: &Call<'_>,
    index: Option<HeaderValue>,
) -> Result<Request<Full<Bytes>>, KmsError> {
    let internal = |what: &'static str| KmsError::new(Code::Internal, what, "report this");
    let uri = address.join(call.path).map_err(|_source| internal("a path is no path"))?;
    let mut request = Request::builder()
        .method(call.method.clone())
        .uri(uri)
        .header(header::USER_AGENT, USER_AGENT)
        .header("x-vault-request", "true");
    if !call.namespace.as_str().is_empty() {
        request = request.header("x-vault-namespace", call.namespace.as_str());
    }
    if let Some(token) = call.token {
        let mut value = HeaderValue::from_str(token.expose())
            .map_err(|_source| internal("the token is no header value"))?;
        value.set_sensitive(true);
        request = request.header("x-vault-token", value);
    }
    if let Some(index) = index {
        request = request.header(INDEX, index).header(INCONSISTENT, FORWARD);
    }
    request
        .body(Full::new(call.body.clone().unwrap_or_default()))
        .map_err(|_source| internal("a request could not be built"))
}

impl Answer {
    /// The body as `T`.
    pub(in crate::adapters::vault) fn parse<T: serde::de::DeserializeOwned>(
        &self,
    ) -> Result<T, KmsError> {
        // The parser's message can quote the body, so it is not passed on.
        serde_json::from_slice(&self.body)
            .map_err(|_private| unreadable("it is not what was asked for"))
    }

    /// A success, or what the refusal says. A batch of which only items failed is a success,
    /// whatever its status.
    pub(super) fn judged(self) -> Result<Self, Failure> {
        if (200..300).contains(&self.status) || self.has_results() {
            return Ok(self);
        }
        let refusal = Refusal::new(self.status, self.retry_after, self.location, &self.body);
        Err(Failure::Refused(refusal))
    }

    fn has_results(&self) -> bool {
        matches!(self.status, 400 | 500) && self.parse::<wire::Data<wire::BatchProbe>>().is_ok()
    }
}

impl Failure {
    /// How long the server asks to wait.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            Self::Unsent(_) | Self::Lost(_) => None,
        }
    }

    /// Where a redirection points.
    pub(super) fn location(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => refusal.location(),
            Self::Unsent(_) | Self::Lost(_) => None,
        }
    }

    pub(in crate::adapters::vault) fn into_error(
        self,
        asked: crate::adapters::vault::refusal::Asked<'_>,
    ) -> KmsError {
        match self {
            Self::Unsent(error) | Self::Lost(error) => error,
            Self::Refused(refusal) => refusal.into_error(asked),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// An answer that cannot be what the keeper meant.
pub(in crate::adapters::vault) fn unreadable(why: &str) -> KmsError {
    KmsError::new(
        Code::KeeperAnswer,
        format!("the keeper's answer cannot be used: {why}"),
        "check that --vault-address is a Vault or OpenBao server, and what stands in front of it",
    )
}

/// A JSON body whose memory is zeroed when the last request that holds it is gone.
pub(in crate::adapters::vault) fn json(body: &impl serde::Serialize) -> Result<Bytes, KmsError> {
    // Room for a seed and its associated data, so that growing leaves no copies behind.
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
    Some(Duration::from_secs(text(headers, &header::RETRY_AFTER)?.parse().ok()?))
}
