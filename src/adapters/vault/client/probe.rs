//! Health checks of the endpoints (`sys/health`): of which cluster each one is, and which one is
//! active.
//!
//! Where there are several, each is checked now and then. When the preferred one fails, the next one
//! answers without a handshake, and one of another cluster is reported at the start and not in an
//! outage.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;

use super::{CallPolicy, Failure, Request, TRY_MIN, Target, VaultClient, nodes::Learned};
use crate::{
    adapters::vault::{
        key_path::Namespace,
        refusal::{Asked, Refusal},
        wire::Health,
    },
    domain::{
        error::{Code, KmsError},
        time::Monotonic,
    },
    ports::telemetry::KeeperOperation,
};

/// Between two checks of an endpoint that serves: less than a connection is kept without use.
const CHECKED_EVERY: Duration = Duration::from_secs(30);

/// Between two checks of one that does not serve: no request finds out that it is back while
/// others serve.
const RECHECKED_EVERY: Duration = Duration::from_secs(3);

/// The most time for one check.
const CHECK_MAX: Duration = Duration::from_secs(2);

/// How long the active node is looked for while there is none, and how often: a good part of an
/// election.
const LEADERLESS: Duration = Duration::from_millis(1_200);
const LEADERLESS_PAUSE: Duration = Duration::from_millis(200);

/// How often a server that refused a login is asked of which cluster it is.
const HEALTH_TRIES: usize = 3;

/// The status of the one node that is active.
const ACTIVE: u16 = 200;

/// The question. It needs no token and is not served in a namespace.
const HEALTH: Request<'static> = Request {
    method: Method::GET,
    path: "sys/health",
    namespace: Namespace::ROOT,
    token: None,
    body: None,
};

/// Whether a server that answers a health check with `status` serves no requests: it is a
/// disaster-recovery secondary, not initialised, or sealed.
pub(super) const fn does_not_serve(status: u16) -> bool {
    matches!(status, 472 | 501 | 503)
}

impl VaultClient {
    /// Checks each endpoint now and then, for ever; ends at once where there is only one.
    pub async fn run_health_checks(&self) {
        if self.nodes(|nodes| nodes.len()) < 2 {
            return;
        }
        let mut all_at = self.clock.now();
        loop {
            let now = self.clock.now();
            let all = now >= all_at;
            if all {
                all_at = now.after(self.spread(CHECKED_EVERY));
            }
            for endpoint in 0..self.settings.addresses.len() {
                let now = self.clock.now();
                if self.nodes(|nodes| nodes.choose_for_health(endpoint, all, now)) {
                    self.check(endpoint).await;
                }
            }
            self.clock.sleep(self.spread(RECHECKED_EVERY)).await;
        }
    }

    fn spread(&self, pause: Duration) -> Duration {
        pause.mul_f64(0.75 + self.clock.jitter() / 2.0)
    }

    /// Where to ask for what was written a moment ago: a standby may not know a new secret ID yet,
    /// and its refusal would be believed. Where no endpoint says for a while that it is the active
    /// node, an election lasts or a load balancer hides the nodes, and any has to do.
    pub(in crate::adapters::vault) async fn at_active(&self, deadline: Monotonic) -> Target {
        if self.settings.addresses.len() < 2 {
            return Target::Any;
        }
        let until = self.clock.now().after(LEADERLESS).min(deadline);
        loop {
            if let Some(active) = self.active().await {
                return Target::Endpoint(active);
            }
            if self.clock.now().after(LEADERLESS_PAUSE) > until {
                return Target::Any;
            }
            self.clock.sleep(LEADERLESS_PAUSE).await;
        }
    }

    /// The endpoint of the active node, if one says that it is. Takes as long as the slowest answer,
    /// and at most 300 ms.
    async fn active(&self) -> Option<usize> {
        let now = self.clock.now();
        let serving = self.nodes(|nodes| nodes.serving(now).collect::<Vec<_>>());
        let asked = serving.into_iter().map(|endpoint| async move {
            let status = self.health(endpoint, TRY_MIN).await;
            (status == Ok(ACTIVE)).then_some(endpoint)
        });
        join_all(asked).await.into_iter().flatten().next()
    }

    /// Checks an endpoint, for its breaker. Which one is preferred stays as it is.
    async fn check(&self, endpoint: usize) {
        let limit = self.settings.request_timeout.min(CHECK_MAX);
        match self.health(endpoint, limit).await {
            Ok(_) => self.learn(endpoint, Learned::Healthy),
            Err(error) => self.learn(endpoint, Learned::Failed(&error)),
        }
    }

    /// Asks an endpoint how it is and of which cluster, within `limit`. Returns the status that says
    /// so.
    ///
    /// # Errors
    /// Why it cannot be used: it is of another cluster, does not serve, or does not answer as a
    /// keeper does.
    pub(super) async fn health(&self, endpoint: usize, limit: Duration) -> Result<u16, KmsError> {
        let answer = self.exchange::<Health>(endpoint, &HEALTH, None, limit).await;
        let answer = answer.map_err(|failure| failure.into_error(Asked::Health))?;
        // A standby that serves answers 429 or 473.
        if does_not_serve(answer.status) {
            return Err(Refusal::of_health(answer.status).into_error(Asked::Health));
        }
        let cluster = answer.value.cluster_id.ok_or_else(|| {
            let address = self.settings.addresses.get(endpoint).map(ToString::to_string);
            let address = address.unwrap_or_default();
            KmsError::new(
                Code::Intermediary,
                format!("{address} does not say of which cluster it is"),
                "check that it is a node of the keeper and that it is initialised",
            )
        })?;
        self.learn(endpoint, Learned::OfCluster(&cluster));
        match self.nodes(|nodes| nodes.foreign(endpoint).cloned()) {
            Some(foreign) => {
                // The name may lead to a server of ours by now.
                self.connections.renew(endpoint, None, self.clock.now());
                Err(foreign)
            }
            None => Ok(answer.status),
        }
    }

    /// Drops the refusal of a login by a server that says, when it is asked now, that it is of another
    /// cluster: its refusal would hold good credentials back. A refusal by a server that says nothing
    /// stands.
    pub(super) async fn of_own_cluster<T>(
        &self,
        endpoint: usize,
        outcome: Result<T, Failure>,
        policy: CallPolicy,
    ) -> Result<T, Failure> {
        let is_refused_login = policy.operation == KeeperOperation::Login
            && matches!(&outcome, Err(Failure::Refused(refusal)) if refusal.refuses_the_pair());
        if !is_refused_login || self.nodes(|nodes| nodes.len()) < 2 {
            return outcome;
        }
        for _ in 0..HEALTH_TRIES {
            let left = policy.deadline.since(self.clock.now()).min(self.settings.request_timeout);
            if self.health(endpoint, left).await.is_ok() {
                return outcome;
            }
            if let Some(foreign) = self.nodes(|nodes| nodes.foreign(endpoint).cloned()) {
                return Err(Failure::Unsent(foreign));
            }
        }
        outcome
    }
}
