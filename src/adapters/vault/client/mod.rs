//! The client for all requests to Vault: it knows the endpoints of one cluster, tries again what is
//! safe to, and ends by each call's deadline.

mod authorities;
mod breaker;
mod dial;
mod endpoints;
mod exchange;
mod retry;
mod trace;
mod transport;
mod warm;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use http::{HeaderValue, Method};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;
use tracing::Instrument as _;

pub use self::{
    authorities::BUNDLE_MAX,
    endpoints::EndpointView,
    transport::{BoxError, Connection, Dial},
};
use self::{
    dial::Dialler,
    endpoints::Endpoints,
    exchange::{Http, exchange},
    retry::{REQUESTS_MAX, Where, is_endpoints_fault, reason, rule},
    transport::Network,
};
pub(super) use self::{
    exchange::{Answer, Call, Failure, json, unreachable, unreadable},
    retry::Repeat,
};
use super::{
    address::VaultAddress,
    key_path::Namespace,
    tls::{TlsSettings, Trust},
    wire::Health,
};
use crate::{
    domain::{
        error::{Code, KmsError},
        time::Monotonic,
    },
    ports::{
        clock::Clock,
        telemetry::{Event, KeeperOperation, RetryReason, Telemetry},
    },
};

/// Idle connections kept, and for how long: less than the 5 minutes after which Vault ends them.
const IDLE_MAX: usize = 64;
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// What an endpoint is given at least before another one is asked.
const TRY_LEAST: Duration = Duration::from_millis(300);

/// A caller who waits for less than this does not prove that an endpoint is out.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is left of a call's time when its cause must be told.
const LAST_WORD: Duration = Duration::from_millis(5);

/// Where Vault is and how to talk to it.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The servers of one cluster, at least one, in the order in which they are tried first.
    pub addresses: Vec<VaultAddress>,
    /// TLS, used for `https` addresses.
    pub tls: TlsSettings,
    /// The most time to establish a connection (`--vault-connection-timeout`).
    pub connect_timeout: Duration,
    /// The most time for one request (`--vault-request-timeout`).
    pub request_timeout: Duration,
}

impl ClientSettings {
    /// Whether every server is spoken to through TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.addresses.iter().all(VaultAddress::is_tls)
    }

    /// What the connection is called in metrics: all addresses.
    #[must_use]
    pub fn connection(&self) -> String {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        addresses.join(",")
    }

    fn http(&self, dial: Arc<dyn Dial>) -> Http {
        Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(Dialler::new(dial, self.connect_timeout))
    }
}

/// The client.
pub struct VaultClient {
    http: RwLock<Arc<Http>>,
    /// The bundle of authorities that `http` believes, where it is one.
    bundle: Mutex<Option<Vec<u8>>>,
    endpoints: Endpoints,
    /// The state of the cluster that the last answer was of; dropped when a node cannot reach it.
    index: Mutex<Option<HeaderValue>>,
    settings: ClientSettings,
    clock: Arc<dyn Clock>,
    telemetry: Arc<dyn Telemetry>,
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
        let network = Network::new(&settings)?;
        Ok(Self::over(Arc::new(network), settings, clock, telemetry))
    }

    /// A client whose connections `dial` makes, whatever the settings say of TLS.
    #[must_use]
    pub fn over(
        dial: Arc<dyn Dial>,
        settings: ClientSettings,
        clock: Arc<dyn Clock>,
        telemetry: Arc<dyn Telemetry>,
    ) -> Self {
        let addresses = settings.addresses.clone();
        let bundle = match &settings.tls.trust {
            Trust::Bundle(bundle) => Some(bundle.clone()),
            Trust::System | Trust::Anybody => None,
        };
        Self {
            http: RwLock::new(Arc::new(settings.http(dial))),
            bundle: Mutex::new(bundle),
            endpoints: Endpoints::new(addresses, Arc::clone(&clock), Arc::clone(&telemetry)),
            index: Mutex::new(None),
            settings,
            clock,
            telemetry,
        }
    }

    /// How each endpoint is.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointView> {
        self.endpoints.view()
    }

    /// The deadline of a request that nobody waits for.
    pub(super) fn background_deadline(&self) -> Monotonic {
        self.clock.now().after(self.settings.request_timeout)
    }

    /// Sends a request and reads its answer; what failed is tried again as the table says, as long
    /// as the deadline allows. The failure is that of the last try.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let mut tries = Tries::default();
        let mut endpoint = self.endpoints.pick(&[]).map_err(Failure::Unsent)?;
        loop {
            let failure = match self.attempt(endpoint, &call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let Some((reason, place, wait)) = tries.next(&failure, call.repeat) else {
                return Err(failure);
            };
            let now = self.clock.now();
            if now.after(wait + TRY_LEAST) > call.deadline {
                return Err(failure);
            }
            endpoint = match (place, &failure) {
                (Where::Same, _) => endpoint,
                (Where::Elsewhere, _) => {
                    tries.avoid(endpoint);
                    match self.endpoints.pick(&tries.avoided) {
                        Ok(other) => other,
                        Err(_all_rest) => return Err(failure),
                    }
                }
                (Where::Named, Failure::Refused(refusal)) => {
                    match refusal.location().and_then(|to| self.endpoints.at_location(to)) {
                        Some(named) => named,
                        None => return Err(failure),
                    }
                }
                (Where::Named, _) => return Err(failure),
            };
            if reason == RetryReason::NotCaughtUp && tries.is_last(reason, call.repeat) {
                // A state that no node reaches, such as one that died with its leader.
                self.keep_index(None);
            }
            self.telemetry.record(Event::Retried(reason));
            self.clock.sleep(wait.mul_f64(0.75 + self.clock.jitter() / 2.0)).await;
        }
    }

    /// One try at one endpoint.
    async fn attempt(&self, endpoint: usize, call: &Call<'_>) -> Result<Answer, Failure> {
        let started = self.clock.now();
        let limit = self.limit(endpoint, call.deadline.since(started));
        let span = trace::span(call, self.endpoints.address(endpoint));
        let asking = self.ask(endpoint, call).instrument(span.clone());
        let outcome = match timeout(limit, asking).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(Failure::Lost(self.late(endpoint, limit))),
        };
        let elapsed = self.clock.now().since(started);
        let error = told(call.operation, &outcome);
        trace::ended(&span, &outcome, error.as_ref());
        let operation = call.operation;
        self.telemetry.record(Event::KeeperCalled { operation, elapsed, error: error.as_ref() });
        match (&outcome, error) {
            (Err(failure), Some(error)) if is_endpoints_fault(failure) => {
                if elapsed >= PATIENCE || !matches!(error.code(), Code::KeeperTimeout) {
                    self.endpoints.failed(endpoint, &error);
                }
            }
            _ => self.endpoints.succeeded(endpoint),
        }
        outcome
    }

    /// How long one try may take: all that is left, or a fair share where others could be asked.
    fn limit(&self, endpoint: usize, left: Duration) -> Duration {
        let others = u32::try_from(self.endpoints.others(endpoint)).unwrap_or(u32::MAX);
        let share = (left / others.saturating_add(1)).max(TRY_LEAST);
        share.min(left).min(self.settings.request_timeout).saturating_sub(LAST_WORD)
    }

    async fn ask(&self, endpoint: usize, call: &Call<'_>) -> Result<Answer, Failure> {
        let Some(address) = self.endpoints.address(endpoint) else {
            let error = KmsError::new(Code::Internal, "no such endpoint", "report this");
            return Err(Failure::Unsent(error));
        };
        if self.endpoints.is_stranger(endpoint) {
            self.introduce(endpoint, address, call.deadline).await?;
        }
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = exchange(self.http(), address, call, index).await?;
        if answer.index.is_some() {
            self.keep_index(answer.index.clone());
        }
        answer.judged()
    }

    /// Asks an endpoint of which cluster it is, and refuses another one than that of the others.
    async fn introduce(
        &self,
        endpoint: usize,
        address: &VaultAddress,
        deadline: Monotonic,
    ) -> Result<(), Failure> {
        let answer = exchange(self.http(), address, &health(deadline), None).await?;
        // Whatever its status: a standby that serves answers 429 or 473.
        match answer.parse::<Health>().ok().and_then(|health| health.cluster_id) {
            Some(cluster) => self.endpoints.introduce(endpoint, &cluster).map_err(Failure::Unsent),
            None => Err(answer.judged().err().unwrap_or_else(|| {
                Failure::Unsent(unreadable("it does not say of which cluster it is"))
            })),
        }
    }

    fn http(&self) -> Arc<Http> {
        Arc::clone(&self.http.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn keep_index(&self, index: Option<HeaderValue>) {
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = index;
    }

    fn late(&self, endpoint: usize, limit: Duration) -> KmsError {
        let address = self.endpoints.address(endpoint).map(ToString::to_string);
        KmsError::new(
            Code::KeeperTimeout,
            format!(
                "no answer from {} within {} ms",
                address.unwrap_or_default(),
                limit.as_millis()
            ),
            "check the keeper's load and the network to it",
        )
    }
}

/// Asks a node how it is; anybody may. It is not served in a namespace.
const fn health(deadline: Monotonic) -> Call<'static> {
    Call {
        operation: KeeperOperation::Read,
        method: Method::GET,
        path: "sys/health",
        namespace: Namespace::ROOT,
        token: None,
        body: None,
        deadline,
        repeat: Repeat::Freely,
    }
}

/// What telemetry is told of a try: not of refusals that a working keeper gives to what it is
/// given, as for each proof of binding.
fn told(operation: KeeperOperation, outcome: &Result<Answer, Failure>) -> Option<KmsError> {
    match outcome {
        Ok(_) => None,
        Err(Failure::Unsent(error) | Failure::Lost(error)) => Some(error.clone()),
        Err(Failure::Refused(refusal))
            if operation == KeeperOperation::Write && refusal.status == 400 =>
        {
            None
        }
        Err(Failure::Refused(refusal)) => Some(refusal.error_of_status()),
    }
}

/// What was tried for one call.
#[derive(Debug, Default)]
struct Tries {
    requests: u32,
    by_reason: Vec<(RetryReason, usize)>,
    avoided: Vec<usize>,
}

impl Tries {
    /// What to do after `failure`: why, where and after which wait. `None` when it is final.
    fn next(
        &mut self,
        failure: &Failure,
        repeat: Repeat,
    ) -> Option<(RetryReason, Where, Duration)> {
        self.requests += 1;
        if self.requests >= REQUESTS_MAX {
            return None;
        }
        let reason = reason(failure)?;
        let rule = rule(reason, repeat)?;
        let times = self.times(reason);
        let wait = *rule.waits.get(times)?;
        let asked = match failure {
            Failure::Refused(refusal) => refusal.retry_after,
            Failure::Unsent(_) | Failure::Lost(_) => None,
        };
        self.by_reason.retain(|(known, _)| *known != reason);
        self.by_reason.push((reason, times + 1));
        Some((reason, rule.place, asked.unwrap_or(wait)))
    }

    fn times(&self, reason: RetryReason) -> usize {
        self.by_reason.iter().find(|(known, _)| *known == reason).map_or(0, |(_, times)| *times)
    }

    /// Whether the try that follows is the last one for `reason`.
    fn is_last(&self, reason: RetryReason, repeat: Repeat) -> bool {
        rule(reason, repeat).is_none_or(|rule| self.times(reason) >= rule.waits.len())
    }

    fn avoid(&mut self, endpoint: usize) {
        self.avoided.push(endpoint);
    }
}

impl fmt::Debug for VaultClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultClient")
            .field("addresses", &self.settings.addresses)
            .finish_non_exhaustive()
    }
}
