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
mod tries;
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

pub(super) use self::exchange::{Answer, At, Call, Failure, Repeat, json, unreachable, unreadable};
pub use self::{
    authorities::BUNDLE_MAX,
    endpoints::EndpointView,
    transport::{BoxError, Connection, Dial},
};
use self::{
    dial::Dialler,
    endpoints::Endpoints,
    exchange::{Http, exchange},
    retry::{Where, is_endpoints_fault},
    transport::Network,
    tries::Tries,
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
        let mut endpoint = match self.where_first(&call).await {
            Ok(endpoint) => endpoint,
            Err(all_rest) => return Err(Failure::Unsent(all_rest)),
        };
        loop {
            let failure = match self.attempt(endpoint, &call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let named = failure.location().and_then(|to| self.endpoints.at_location(to));
            let Some(step) = tries.next(&failure, named, call.repeat) else { return Err(failure) };
            if self.clock.now().after(step.wait + TRY_LEAST) > call.deadline {
                return Err(failure);
            }
            endpoint = match (step.place, named) {
                (Where::Same, _) => endpoint,
                (Where::Named, Some(named)) => named,
                (place, _) => {
                    tries.avoid(endpoint);
                    match self.endpoints.pick(tries.avoided()) {
                        Ok(other) if place != Where::Another || tries.is_new(other) => other,
                        Ok(_) | Err(_) => return Err(failure),
                    }
                }
            };
            if step.reason == RetryReason::NotCaughtUp && step.is_last {
                // A state that no node reaches, such as one that died with its leader.
                self.keep_index(None);
            }
            self.telemetry.record(Event::Retried(step.reason));
            self.clock.sleep(step.wait.mul_f64(0.75 + self.clock.jitter() / 2.0)).await;
        }
    }

    /// The endpoint that a call goes to first.
    async fn where_first(&self, call: &Call<'_>) -> Result<usize, KmsError> {
        match call.at {
            At::Active if self.endpoints.len() > 1 => match self.active(call.deadline).await {
                Some(active) => Ok(active),
                None => self.endpoints.pick(&[]),
            },
            At::Active | At::Any => self.endpoints.pick(&[]),
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
            // The order of the others is the operator's.
            _ => self.endpoints.succeeded(endpoint, call.at == At::Any),
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
        at: At::Any,
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

impl fmt::Debug for VaultClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultClient")
            .field("addresses", &self.settings.addresses)
            .finish_non_exhaustive()
    }
}
