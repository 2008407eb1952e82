//! One HTTP client for all requests to Vault: pooled, bounded in time and size, never following
//! a redirect.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{address::VaultAddress, key_path::Namespace, refusal::Refusal, tls::TlsSettings};
use crate::{
    domain::{
        error::{Code, KmsError},
        secret::Secret,
        time::{Monotonic, UnixTime},
    },
    ports::{
        clock::Clock,
        telemetry::{Event, KeeperOperation, Telemetry},
    },
};

/// Idle connections kept, and for how long: less than the 5 minutes after which Vault ends them.
const IDLE_MAX: usize = 64;
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Largest answer, in bytes. A key with ten thousand versions takes about 200 KiB.
const ANSWER_MAX: usize = 1_048_576;

const USER_AGENT: &str = concat!("vault-kube-kms/", env!("CARGO_PKG_VERSION"));

/// Where Vault is and how to talk to it.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The server.
    pub address: VaultAddress,
    /// TLS, used for `https` addresses.
    pub tls: TlsSettings,
    /// The most time to establish a connection (`--vault-connection-timeout`).
    pub connect_timeout: Duration,
    /// The most time for one request (`--vault-request-timeout`).
    pub request_timeout: Duration,
}

impl ClientSettings {
    /// How TCP connections are made.
    pub(super) fn connector(&self) -> HttpConnector {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(15)));
        // Shared out among the addresses of a name, so that a dead one does not take all the time.
        tcp.set_connect_timeout(Some(self.connect_timeout.min(self.request_timeout)));
        tcp
    }
}

/// The client.
pub struct VaultClient {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    address: VaultAddress,
    request_timeout: Duration,
    clock: Arc<dyn Clock>,
    telemetry: Arc<dyn Telemetry>,
}

/// One request. It holds secrets, so it has no `Debug`.
pub(super) struct Call<'a> {
    pub(super) operation: KeeperOperation,
    pub(super) method: Method,
    /// Below `/v1/`, from validated parts.
    pub(super) path: &'a str,
    pub(super) namespace: &'a Namespace,
    pub(super) token: Option<&'a Secret>,
    /// JSON, zeroed once it was sent.
    pub(super) body: Option<Bytes>,
    pub(super) deadline: Monotonic,
}

/// A success.
pub(super) struct Answer {
    body: Zeroizing<Vec<u8>>,
    /// The server's clock, where it sent `Date`.
    pub(super) date: Option<UnixTime>,
}

/// What a request failed with.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer, or none that could be read.
    Transport(KmsError),
    /// An answer that was no success.
    Refused(Refusal),
}

impl VaultClient {
    /// A client that has not connected yet.
    ///
    /// # Errors
    /// Why TLS cannot be set up; see [`TlsSettings::client_config`].
    pub fn new(
        settings: ClientSettings,
        clock: Arc<dyn Clock>,
        telemetry: Arc<dyn Telemetry>,
    ) -> Result<Self, String> {
        let tcp = settings.connector();
        let mut builder = HttpsConnectorBuilder::new()
            .with_tls_config(if settings.address.is_tls() {
                settings.tls.client_config()?
            } else {
                TlsSettings::unused()?
            })
            .https_or_http();
        if let Some(name) = settings.tls.server_name {
            builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        let http = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(builder.enable_http1().wrap_connector(tcp));
        Ok(Self {
            http,
            address: settings.address,
            request_timeout: settings.request_timeout,
            clock,
            telemetry,
        })
    }

    /// The deadline of a request that nobody waits for.
    pub(super) fn background_deadline(&self) -> Monotonic {
        self.clock.now().after(self.request_timeout)
    }

    /// Sends one request and reads its answer, within its deadline and the request time-out.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let started = self.clock.now();
        let operation = call.operation;
        let limit = call.deadline.since(started).min(self.request_timeout);
        let result = match timeout(limit, self.exchange(call)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Failure::Transport(self.late(limit))),
        };
        let error = match &result {
            Err(Failure::Transport(error)) => Some(error.clone()),
            // The keeper works: it refused what it was given, as it does for each proof of binding.
            Err(Failure::Refused(refusal))
                if operation == KeeperOperation::Write && refusal.status == 400 =>
            {
                None
            }
            Err(Failure::Refused(refusal)) => Some(KmsError::new(
                Code::KeeperFailed,
                format!("status {}", refusal.status),
                "see the error of the call",
            )),
            Ok(_) => None,
        };
        let elapsed = self.clock.now().since(started);
        self.telemetry.record(Event::KeeperCalled { operation, elapsed, error: error.as_ref() });
        result
    }

    async fn exchange(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let request = self.request(call).map_err(Failure::Transport)?;
        let response = self.http.request(request).await.map_err(|error| {
            Failure::Transport(unreachable(&self.address, &error, error.is_connect()))
        })?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|error| {
            Failure::Transport(unreachable(&self.address, error.as_ref(), false))
        })?;
        // The library's own buffers are beyond reach; ours are zeroed.
        let body = Zeroizing::new(Vec::from(body.to_bytes()));
        if parts.status.is_success() {
            return Ok(Answer { body, date: date(&parts.headers) });
        }
        let status = parts.status.as_u16();
        Err(Failure::Refused(Refusal::new(status, retry_after(&parts.headers), &body)))
    }

    fn request(&self, call: Call<'_>) -> Result<Request<Full<Bytes>>, KmsError> {
        let internal = |what: &'static str| KmsError::new(Code::Internal, what, "report this");
        let uri = self.address.join(call.path).map_err(|_source| internal("a path is no path"))?;
        let mut request = Request::builder()
            .method(call.method)
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
        request
            .body(Full::new(call.body.unwrap_or_default()))
            .map_err(|_source| internal("a request could not be built"))
    }

    fn late(&self, limit: Duration) -> KmsError {
        KmsError::new(
            Code::KeeperTimeout,
            format!("no answer from {} within {} ms", self.address, limit.as_millis()),
            "check the keeper's load and the network to it",
        )
    }
}

impl Answer {
    /// The body as `T`.
    pub(super) fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, KmsError> {
        // The parser's message can quote the body, so it is not passed on.
        serde_json::from_slice(&self.body)
            .map_err(|_private| unreadable("it is not what was asked for"))
    }
}

impl Failure {
    pub(super) fn into_error(self, asked: super::refusal::Asked<'_>) -> KmsError {
        match self {
            Self::Transport(error) => error,
            Self::Refused(refusal) => refusal.into_error(asked),
        }
    }
}

impl fmt::Debug for VaultClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultClient").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("date", &self.date).finish_non_exhaustive()
    }
}

/// What `error` means for whoever looks after the address.
pub(super) fn unreachable(
    address: &VaultAddress,
    error: &(dyn std::error::Error + 'static),
    connecting: bool,
) -> KmsError {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    let cause = root.to_string();
    let remedy = if cause.contains("certificate expired") {
        "renew the server's certificate; if it is newer, correct this node's clock"
    } else if cause.contains("certificate") {
        "give the CA with --tls-ca-file, or the certificate's name with --tls-sni"
    } else {
        "check --vault-address, that the keeper runs, and the network to it"
    };
    let what = if connecting { "cannot connect to" } else { "lost the connection to" };
    KmsError::new(Code::KeeperUnreachable, format!("{what} {address}: {cause}"), remedy)
}

/// An answer that cannot be what the keeper meant.
pub(super) fn unreadable(why: &str) -> KmsError {
    KmsError::new(
        Code::KeeperAnswer,
        format!("the keeper's answer cannot be used: {why}"),
        "check that --vault-address is a Vault or OpenBao server, and what stands in front of it",
    )
}

/// A JSON body whose memory is zeroed when the last request that holds it is gone.
pub(super) fn json(body: &impl serde::Serialize) -> Result<Bytes, KmsError> {
    // Room for a seed and its associated data, so that growing leaves no copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(4_096));
    serde_json::to_writer(&mut *bytes, body).map_err(|_source| {
        KmsError::new(Code::Internal, "a body could not be written", "report this")
    })?;
    Ok(Bytes::from_owner(bytes))
}

fn date(headers: &HeaderMap) -> Option<UnixTime> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    let time = httpdate::parse_http_date(text).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(UnixTime::from_secs(i64::try_from(since.as_secs()).ok()?))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
