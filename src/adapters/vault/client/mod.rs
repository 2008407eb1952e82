//! The client for all requests to Vault. It chooses an endpoint, sends the request, and records the
//! result for the next choice. It repeats failed requests by the table in `retry`, until the
//! deadline of the call.
//!
//! How one request reaches one server is the task of `servers`.

mod breaker;
mod login_path;
mod nodes;
mod policy;
mod probe;
mod refused_logins;
mod retry;
mod secondaries;
mod tries;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::HeaderValue;
use tracing::{Instrument as _, warn};

pub(super) use self::policy::{CallPolicy, Repeat, Target};
use self::{
    nodes::{Learned, NodeChange, Nodes, Wanted},
    policy::Attempt,
    retry::Where,
    tries::{Step, Tries},
};
use super::{
    servers::{self, Answer, Dial, Expected, Failure, Request, ServerSettings, Servers},
    vocabulary::RetryReason,
};
use crate::{
    domain::error::KmsError,
    ports::{
        clock::Clock,
        keeper::EndpointView,
        telemetry::{Event, Telemetry},
    },
};

/// The shortest time that one try gets before another endpoint is tried.
const TRY_MIN: Duration = Duration::from_millis(300);

/// How many tries share the time of a call that has a time-out of its own (`--login-timeout`), however
/// many endpoints there are.
const SLOW_TRIES: usize = 3;

/// The longest time for a request that only finds out about a server.
const CHECK_MAX: Duration = Duration::from_secs(2);

/// The client for the servers of one cluster.
pub struct VaultClient {
    servers: Servers,
    nodes: Mutex<Nodes>,
    /// The cluster state (`X-Vault-Index`) of the last success. Removed if no node reaches that
    /// state.
    index: Mutex<Option<HeaderValue>>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<dyn Telemetry>,
}

impl VaultClient {
    /// Creates a client. Opens no connection.
    ///
    /// # Errors
    /// Returns why TLS cannot be set up; see [`TlsSettings::client_config`].
    ///
    /// [`TlsSettings::client_config`]: super::tls::TlsSettings::client_config
    pub fn new(
        settings: ServerSettings,
        clock: Arc<dyn Clock>,
        telemetry: Arc<dyn Telemetry>,
    ) -> Result<Self, String> {
        let servers = Servers::new(settings, Arc::clone(&clock), Arc::clone(&telemetry))?;
        Ok(Self::of(servers, clock, telemetry))
    }

    /// Creates a client that connects through `dial` and ignores the TLS settings.
    #[must_use]
    pub fn over(
        dial: Arc<dyn Dial>,
        settings: ServerSettings,
        clock: Arc<dyn Clock>,
        telemetry: Arc<dyn Telemetry>,
    ) -> Self {
        let servers = Servers::over(dial, settings, Arc::clone(&clock), Arc::clone(&telemetry));
        Self::of(servers, clock, telemetry)
    }

    fn of(servers: Servers, clock: Arc<dyn Clock>, telemetry: Arc<dyn Telemetry>) -> Self {
        let nodes = Mutex::new(Nodes::new(servers.addresses().to_vec()));
        Self { servers, nodes, index: Mutex::new(None), clock, telemetry }
    }

    /// Returns the servers, whose TLS settings can be replaced.
    #[must_use]
    pub const fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Returns the state of each endpoint.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointView> {
        self.nodes(|nodes| nodes.view())
    }

    /// Sends `request` and returns its answer. Repeats failed tries by the retry table until the
    /// deadline. Returns the failure of the last try, or the refusal of the token if the last try
    /// was only redirected.
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
        let mut refused: Option<Failure> = None;
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
                // A redirect does not tell whether the token is valid, and an outage does not tell
                // whether the credential is. The refusal by another node stays the result.
                let stays = |refused: &Failure| match refused {
                    Failure::Disregarded(_) => matches!(failure, Failure::Unsent(_)),
                    _ => failure.location().is_some(),
                };
                return Err(refused.filter(stays).unwrap_or(failure));
            };
            endpoint = next;
            if step.reason == RetryReason::TokenUnknown
                || matches!(failure, Failure::Disregarded(_))
            {
                refused = Some(failure);
            }
            if step.reason == RetryReason::NotCaughtUp && step.is_last {
                // No node reaches this state. It may be lost with a former leader.
                self.keep_index(None);
            }
            self.telemetry.record(Event::Retried(step.reason.as_str()));
            self.clock.sleep(wait).await;
        }
    }

    /// Returns what follows `failure` at `endpoint`: the step, the wait before it, and the endpoint
    /// to try. Returns `None` if the failure is final.
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
        if now.after(wait).after(TRY_MIN) > policy.deadline {
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
        let others = match (policy.repeat, policy.try_limit) {
            (Repeat::Freely, None) => others,
            // A keeper may need seconds for a renewal.
            (Repeat::Freely, Some(_)) => others.min(SLOW_TRIES - 1),
            // A login that is given up may leave an unused token.
            (Repeat::Once | Repeat::Never, _) => 0,
        };
        let limit = self.limit(others, policy.deadline.since(started), policy.try_limit);
        let span = self.servers.span(endpoint, request);
        let outcome = match self.admit(endpoint, request, policy, limit).await {
            Ok(left) => {
                let index = if attempt.alone { None } else { self.index() };
                let longer = policy.waits_longer;
                let exchange = self.servers.exchange(endpoint, request, index, left, longer);
                let outcome = exchange.instrument(span.clone()).await;
                self.judged_login(endpoint, request, outcome, policy).await
            }
            Err(failure) => Err(failure),
        };
        let elapsed = self.clock.now().since(started);
        let operation = policy.operation;
        let error = match &outcome {
            Ok(_) => None,
            Err(Failure::Redirected { is_repeatable: true, .. }) if attempt.alone => None,
            Err(failure) => failure.reportable_error(operation),
        };
        if let Some(error) = &error {
            servers::record_failure(&span, error);
        }
        self.telemetry.record(Event::KeeperCalled { operation, elapsed, error: error.as_ref() });
        match (&outcome, &error) {
            (Err(failure), _) if failure.says_nothing() => (),
            (Err(failure), Some(error)) if failure.is_of_an_intermediary(operation) => {
                self.learn(endpoint, Learned::Page(error));
            }
            (Err(failure), Some(error)) if failure.is_endpoints_fault() => {
                self.learn(endpoint, Learned::Failed(error));
            }
            // Any other result is an answer of the endpoint. Each request here has a credential.
            _ => {
                let (as_any, accepted) = (attempt.as_any, outcome.is_ok());
                self.learn(endpoint, Learned::Answered { as_any, accepted });
            }
        }
        outcome
    }

    /// Returns how long one try may take: an equal share of the time that is `left` if `others` can
    /// be tried too, at most `most` or the request time-out.
    fn limit(&self, others: usize, left: Duration, most: Option<Duration>) -> Duration {
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        let share = (left / others.saturating_add(1)).max(TRY_MIN);
        let most = most.unwrap_or(self.servers.request_timeout());
        share.min(left).min(most)
    }

    /// Finds out whether `request` may be sent to an endpoint: not to one of another cluster.
    /// Verifies to which cluster the endpoint belongs, if that is not known yet. Returns the rest of
    /// `limit`.
    async fn admit(
        &self,
        endpoint: usize,
        request: &Request<'_>,
        policy: CallPolicy,
        limit: Duration,
    ) -> Result<Duration, Failure> {
        let began = self.clock.now();
        // The endpoint may have been found to be foreign during the wait before this try.
        let (foreign, is_unverified) =
            self.nodes(|nodes| (nodes.foreign(endpoint), nodes.is_unverified(endpoint)));
        if let Some(foreign) = foreign {
            return Err(Failure::Unsent(foreign));
        }
        if is_unverified {
            self.health(endpoint, limit).await.map_err(Failure::Unsent)?;
        }
        let left = limit.saturating_sub(self.clock.now().since(began));
        self.earlier_refusal(endpoint, request, policy).map_or(Ok(left), Err)
    }

    /// Runs `with` on the state of the endpoints, and reports the changes to telemetry and the log.
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
                NodeChange::Foreign(error) => report(&error, "an endpoint is not used"),
                NodeChange::Conflict(error) => report(&error, "one of two endpoints is wrong"),
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

impl fmt::Debug for VaultClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultClient").field("servers", &self.servers).finish_non_exhaustive()
    }
}
