//! The client for all requests to Vault. It chooses an endpoint, exchanges a request for an answer,
//! and learns from what became of it; what failed is tried again as a table says, within the
//! deadline of each call.

mod authorities;
mod breaker;
mod connections;
mod exchange;
mod expiry;
mod failure;
mod nodes;
mod policy;
mod probe;
mod retry;
mod survey;
mod trace;
mod transport;
mod tries;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::HeaderValue;
use tracing::{Instrument as _, warn};

pub use self::transport::{BoxError, Dial, KeeperConnection};
use self::{
    connections::Connections,
    exchange::{Exchanged, exchange},
    expiry::ServerCertificates,
    nodes::{Learned, NodeChange, Nodes, Wanted},
    policy::Attempt,
    retry::Where,
    transport::Network,
    tries::{Step, Tries},
};
pub(super) use self::{
    exchange::{Answer, Expected, Request, json, unreachable, unreadable},
    failure::Failure,
    policy::{CallPolicy, Repeat, Target},
};
use super::{
    address::VaultAddress,
    bundle,
    tls::{TlsSettings, Trust},
    vocabulary::{self, RetryReason},
};
use crate::{
    domain::{
        error::{Code, KmsError},
        time::UnixTime,
    },
    ports::{
        clock::Clock,
        keeper::EndpointView,
        telemetry::{Event, Expiring, KeeperOperation, Telemetry},
    },
};

/// What an endpoint is given at least before another one is asked.
const TRY_LEAST: Duration = Duration::from_millis(300);

/// Time-outs of less than this are not held against the endpoint: the caller had little time left.
/// Less than a fair share of a call's time among many endpoints.
const MIN_COUNTED_TIMEOUT: Duration = Duration::from_millis(250);

/// Kept back from a call's time, so that its cause arrives before the outer deadline ends it.
const ERROR_RESERVE: Duration = Duration::from_millis(5);

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
}

/// The client.
pub struct VaultClient {
    nodes: Mutex<Nodes>,
    connections: Connections,
    /// The bundle of authorities that counts, where one is configured.
    bundle: Mutex<Option<Vec<u8>>>,
    certificates: Arc<ServerCertificates>,
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
        let certificates = Arc::new(ServerCertificates::new(Arc::clone(&telemetry)));
        let network = Arc::new(Network::new(&settings, Arc::clone(&certificates))?);
        let client = Self { certificates, ..Self::over(network, settings, clock, telemetry) };
        if let Trust::Bundle(bundle) = &client.settings.tls.trust {
            client.expires(vocabulary::AUTHORITIES, bundle::read(bundle)?.first_end);
        }
        Ok(client)
    }

    /// A client whose connections `dial` makes, whatever the settings say of TLS.
    #[must_use]
    pub fn over(
        dial: Arc<dyn Dial>,
        settings: ClientSettings,
        clock: Arc<dyn Clock>,
        telemetry: Arc<dyn Telemetry>,
    ) -> Self {
        let bundle = match &settings.tls.trust {
            Trust::Bundle(bundle) => Some(bundle.clone()),
            Trust::System | Trust::BundleUnavailable(_) | Trust::InsecureSkipVerify => None,
        };
        let count = settings.addresses.len();
        Self {
            nodes: Mutex::new(Nodes::new(settings.addresses.clone())),
            connections: Connections::new(count, dial, settings.connect_timeout),
            bundle: Mutex::new(bundle),
            certificates: Arc::new(ServerCertificates::new(Arc::clone(&telemetry))),
            index: Mutex::new(None),
            settings,
            clock,
            telemetry,
        }
    }

    /// How each endpoint is.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointView> {
        self.nodes(|nodes| nodes.view())
    }

    /// Reports when `what` expires; `None` where that is not known.
    pub(super) fn expires(&self, what: Expiring, at: Option<UnixTime>) {
        self.telemetry.record(Event::Expires { what, at });
    }

    /// Sends `request` and returns what was asked for; what failed is tried again as the table says,
    /// as long as the deadline allows. The failure is that of the last try, or the refusal of its
    /// token.
    pub(super) async fn send<T: Expected>(
        &self,
        request: &Request<'_>,
        policy: CallPolicy,
    ) -> Result<Answer<T>, Failure> {
        let mut tries = Tries::default();
        let wanted = match policy.target {
            Target::Endpoint(index) => Wanted::This(index),
            Target::Any => Wanted::Any(&[]),
        };
        let now = self.clock.now();
        let chosen = self.nodes(|nodes| nodes.choose(wanted, now));
        let mut endpoint = chosen.map_err(Failure::Unsent)?;
        let as_any = policy.target == Target::Any;
        let mut dead_token = None;
        loop {
            let attempt = Attempt { endpoint, avoided: tries.avoided(), alone: false, as_any };
            let failure = match self.attempt(attempt, request, policy).await {
                Ok(answer) => {
                    if answer.index.is_some() {
                        self.keep_index(answer.index.clone());
                    }
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let Some((step, wait, next)) = self.following(&failure, endpoint, policy, &mut tries)
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
            self.telemetry.record(Event::Retried(step.reason.as_str()));
            self.clock.sleep(wait).await;
        }
    }

    /// What follows the failure of a call at `endpoint`: the step, how long to wait before it, and
    /// where it leads; `None` when the failure is final.
    fn following(
        &self,
        failure: &Failure,
        endpoint: usize,
        policy: CallPolicy,
        tries: &mut Tries,
    ) -> Option<(Step, Duration, usize)> {
        let named = failure.location().and_then(|to| self.nodes(|nodes| nodes.at_location(to)));
        let step = tries.next(failure, endpoint, named, policy.repeat)?;
        let wait = step.wait(self.clock.jitter());
        let now = self.clock.now();
        if now.after(wait).after(TRY_LEAST) > policy.deadline {
            return None;
        }
        let wanted = match (step.place, named) {
            (Where::Same, _) => return Some((step, wait, endpoint)),
            (Where::RedirectTarget, Some(named)) => Wanted::This(named),
            (place, _) => {
                tries.avoid(endpoint);
                match place {
                    Where::RequireOther => Wanted::Other(tries.avoided()),
                    _ => Wanted::Any(tries.avoided()),
                }
            }
        };
        let next = self.nodes(|nodes| nodes.choose(wanted, now)).ok()?;
        Some((step, wait, next))
    }

    /// Sends `request` once.
    async fn attempt<T: Expected>(
        &self,
        attempt: Attempt<'_>,
        request: &Request<'_>,
        policy: CallPolicy,
    ) -> Result<Answer<T>, Failure> {
        let Attempt { endpoint, .. } = attempt;
        let started = self.clock.now();
        let others = self.nodes(|nodes| nodes.others(endpoint, attempt.avoided, started));
        // A try that is given up may leave a token behind: what is not repeated freely gets all time.
        let others = if policy.repeat == Repeat::Freely { others } else { 0 };
        let limit = self.limit(others, policy.deadline.since(started), policy.try_limit);
        let span = trace::span(request, self.settings.addresses.get(endpoint));
        let outcome = match self.verify(endpoint, limit).await {
            Ok(left) => {
                let index = if attempt.alone { None } else { self.index() };
                let exchange = self.exchange(endpoint, request, index, left);
                let outcome = exchange.instrument(span.clone()).await;
                self.of_own_cluster(endpoint, outcome, policy).await
            }
            // Whatever that met, nothing of the call was sent.
            Err(error) => Err(Failure::Unsent(error)),
        };
        let elapsed = self.clock.now().since(started);
        let operation = policy.operation;
        let error = match &outcome {
            Ok(_) => None,
            Err(Failure::Redirected { .. }) if attempt.alone => None,
            Err(failure) => failure.reportable_error(operation),
        };
        if let Some(error) = &error {
            trace::failed(&span, error);
        }
        self.telemetry.record(Event::KeeperCalled { operation, elapsed, error: error.as_ref() });
        match (&outcome, &error) {
            // A page in the place of a renewal's answer says nothing of the calls.
            (Err(Failure::Intermediary { .. }), _) if operation == KeeperOperation::Renew => (),
            (Err(failure), Some(error)) if failure.is_endpoints_fault() => {
                if elapsed >= MIN_COUNTED_TIMEOUT || error.code() != Code::KeeperTimeout {
                    self.learn(endpoint, Learned::Failed(error));
                }
            }
            // The order of the others is the operator's.
            _ => self.learn(endpoint, Learned::Answered { as_any: attempt.as_any }),
        }
        outcome
    }

    /// How long one try may take: all that is left, or a fair share where `others` are left to ask.
    fn limit(&self, others: usize, left: Duration, most: Option<Duration>) -> Duration {
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        let share = (left / others.saturating_add(1)).max(TRY_LEAST);
        let most = most.unwrap_or(self.settings.request_timeout);
        share.min(left).min(most).saturating_sub(ERROR_RESERVE)
    }

    /// Asks an endpoint of which cluster it is, where that must be known first. Returns what is left
    /// of `limit`.
    async fn verify(&self, endpoint: usize, limit: Duration) -> Result<Duration, KmsError> {
        if !self.nodes(|nodes| nodes.is_unverified(endpoint)) {
            return Ok(limit);
        }
        let began = self.clock.now();
        self.health(endpoint, limit).await?;
        Ok(limit.saturating_sub(self.clock.now().since(began)))
    }

    /// One exchange with one endpoint. The connections to a server that does not serve are closed.
    async fn exchange<T: Expected>(
        &self,
        endpoint: usize,
        request: &Request<'_>,
        index: Option<HeaderValue>,
        limit: Duration,
    ) -> Result<Answer<T>, Failure> {
        let address = self.address(endpoint).map_err(Failure::Unsent)?;
        let http = self.connections.to(endpoint, self.clock.now());
        let http = http.ok_or_else(|| Failure::Unsent(no_endpoint()))?;
        let Exchanged { outcome, peer } = exchange(&http, address, request, index, limit).await;
        trace::answered(&outcome);
        let outcome = outcome.and_then(|raw| raw.judged(endpoint, address));
        let wants_another = match &outcome {
            Ok(answer) => probe::does_not_serve(answer.status),
            Err(failure) => failure.wants_another_server(),
        };
        if wants_another {
            self.connections.renew(endpoint, peer, self.clock.now());
        }
        outcome
    }

    fn address(&self, endpoint: usize) -> Result<&VaultAddress, KmsError> {
        self.settings.addresses.get(endpoint).ok_or_else(no_endpoint)
    }

    /// Runs `with` on what is known of the endpoints, and reports what it changed.
    fn nodes<R>(&self, with: impl FnOnce(&mut Nodes) -> R) -> R {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let result = with(&mut nodes);
        let changes = nodes.take_changes();
        drop(nodes);
        for change in changes {
            match change {
                NodeChange::Breaker(endpoint, state) => {
                    self.telemetry.record(Event::Breaker { endpoint, state });
                }
                NodeChange::Foreign(error) => report(&error, "an endpoint is left out"),
                NodeChange::Stale(endpoint, error) => {
                    self.telemetry.record(Event::Stale { endpoint, stale: error.is_some() });
                    if let Some(error) = error {
                        report(&error, "an endpoint is stale");
                    }
                }
            }
        }
        result
    }

    fn learn(&self, endpoint: usize, learned: Learned<'_>) {
        let (now, spread) = (self.clock.now(), self.clock.jitter());
        self.nodes(|nodes| nodes.learn(endpoint, learned, now, spread));
    }

    fn index(&self) -> Option<HeaderValue> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep_index(&self, index: Option<HeaderValue>) {
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = index;
    }
}

fn report(error: &KmsError, what: &'static str) {
    let (cause, remedy) = (error.cause(), error.remedy());
    warn!(code = error.code().as_str(), cause, remedy, "{what}");
}

fn no_endpoint() -> KmsError {
    KmsError::new(Code::Internal, "no such endpoint", "report this")
}

impl fmt::Debug for VaultClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultClient")
            .field("addresses", &self.settings.addresses)
            .finish_non_exhaustive()
    }
}
