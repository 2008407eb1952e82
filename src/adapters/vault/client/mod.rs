//! The client for all requests to Vault: it knows the endpoints of one cluster, tries again what is
//! safe to, and ends by each call's deadline.

mod authorities;
mod breaker;
mod dial;
mod endpoints;
mod exchange;
mod greeting;
mod retry;
mod survey;
mod trace;
mod transport;
mod tries;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use http::HeaderValue;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;
use tracing::Instrument as _;

pub(super) use self::exchange::{Answer, At, Call, Failure, Repeat, json, unreachable, unreadable};
use self::{
    dial::Dialler,
    endpoints::Endpoints,
    exchange::{Http, exchange},
    retry::{Where, is_endpoints_fault},
    transport::Network,
    tries::{Step, Tries},
};
pub use self::{
    endpoints::EndpointView,
    transport::{BoxError, Connection, Dial},
};
use super::{
    address::VaultAddress,
    tls::{TlsSettings, Trust},
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
    /// The state of the cluster that the last success was of; dropped when a node cannot reach it.
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
            Trust::System | Trust::Awaited(_) | Trust::Anybody => None,
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
    /// as the deadline allows. The failure is that of the last try, or the refusal of its token.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let mut tries = Tries::default();
        let mut endpoint = match call.at {
            At::Endpoint(named) | At::Alone(named) => {
                self.endpoints.sent(named);
                named
            }
            At::Any => self.endpoints.pick(&[]).map_err(Failure::Unsent)?,
        };
        let mut dead_token = None;
        loop {
            let failure = match self.attempt(endpoint, &call, tries.avoided()).await {
                Ok(answer) => {
                    if answer.index.is_some() {
                        self.keep_index(answer.index.clone());
                    }
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let Some((step, wait, next)) = self.following(&failure, endpoint, &call, &mut tries)
            else {
                // A node that points elsewhere says nothing of a token that another one refused.
                let said_nothing = failure.location().is_some();
                return Err(dead_token.filter(|_| said_nothing).unwrap_or(failure));
            };
            endpoint = next;
            if step.reason == RetryReason::TokenUnknown {
                dead_token = Some(failure);
            }
            if step.reason == RetryReason::NotCaughtUp && step.is_last {
                // A state that no node reaches, such as one that died with its leader.
                self.keep_index(None);
            }
            self.telemetry.record(Event::Retried(step.reason));
            self.clock.sleep(wait).await;
        }
    }

    /// What follows the failure of a call at `endpoint`: the step, how long to wait before it, and
    /// where it leads; `None` when the failure is final.
    fn following(
        &self,
        failure: &Failure,
        endpoint: usize,
        call: &Call<'_>,
        tries: &mut Tries,
    ) -> Option<(Step, Duration, usize)> {
        let named = failure.location().and_then(|to| self.endpoints.at_location(to));
        let step = tries.next(failure, endpoint, named, call.repeat)?;
        let wait = step.wait(self.clock.jitter());
        if self.clock.now().after(wait + TRY_LEAST) > call.deadline {
            return None;
        }
        let next = match (step.place, named) {
            (Where::Same, _) => endpoint,
            (Where::Named, Some(named)) => {
                self.endpoints.sent(named);
                named
            }
            (place, _) => {
                tries.avoid(endpoint);
                match place {
                    Where::Another => self.endpoints.pick_new(tries.avoided())?,
                    _ => self.endpoints.pick(tries.avoided()).ok()?,
                }
            }
        };
        Some((step, wait, next))
    }

    /// One try at one endpoint.
    async fn attempt(
        &self,
        endpoint: usize,
        call: &Call<'_>,
        avoided: &[usize],
    ) -> Result<Answer, Failure> {
        let started = self.clock.now();
        let others = self.endpoints.others(endpoint, avoided);
        let limit = self.limit(others, call.deadline.since(started));
        let span = trace::span(call, self.endpoints.address(endpoint));
        let asking = self.ask(endpoint, call).instrument(span.clone());
        let outcome = match timeout(limit, asking).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(Failure::Lost(self.late(endpoint, limit))),
        };
        let elapsed = self.clock.now().since(started);
        let error = told(call, &outcome);
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

    /// How long one try may take: all that is left, or a fair share where `others` are left to ask.
    fn limit(&self, others: usize, left: Duration) -> Duration {
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        let share = (left / others.saturating_add(1)).max(TRY_LEAST);
        share.min(left).min(self.settings.request_timeout).saturating_sub(LAST_WORD)
    }

    async fn ask(&self, endpoint: usize, call: &Call<'_>) -> Result<Answer, Failure> {
        let address = self.address(endpoint).map_err(Failure::Unsent)?;
        if self.endpoints.is_stranger(endpoint) {
            // Whatever this meets, nothing of the call was sent.
            self.how_is(endpoint, call.deadline).await.map_err(Failure::Unsent)?;
        }
        // What is asked of one node for its own sake is not passed on.
        let index = match call.at {
            At::Any | At::Endpoint(_) => self.index(),
            At::Alone(_) => None,
        };
        exchange(self.http(), (endpoint, address), call, index).await?.judged()
    }

    fn address(&self, endpoint: usize) -> Result<&VaultAddress, KmsError> {
        let address = self.endpoints.address(endpoint);
        address.ok_or_else(|| KmsError::new(Code::Internal, "no such endpoint", "report this"))
    }

    fn http(&self) -> Arc<Http> {
        Arc::clone(&self.http.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn index(&self) -> Option<HeaderValue> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

/// What telemetry is told of a try: not of refusals that a working keeper gives to what it is
/// given, as for each proof of binding, and not of a standby that has nothing to say for itself.
fn told(call: &Call<'_>, outcome: &Result<Answer, Failure>) -> Option<KmsError> {
    match outcome {
        Ok(_) => None,
        Err(Failure::Unsent(error) | Failure::Lost(error)) => Some(error.clone()),
        Err(Failure::Refused(refusal))
            if call.operation == KeeperOperation::Write && refusal.status == 400 =>
        {
            None
        }
        Err(Failure::Refused(refusal))
            if matches!(call.at, At::Alone(_)) && refusal.location().is_some() =>
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
