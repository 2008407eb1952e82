//! Health checks of the endpoints (`sys/health`). They tell to which cluster each endpoint belongs,
//! and which endpoint is active.
//! Several endpoints are checked regularly, so that the next endpoint has an open connection if the
//! preferred one fails. An endpoint of another cluster is reported at the start, not first in an
//! outage.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use tracing::warn;

use super::{CHECK_MAX, CallPolicy, TRY_MIN, Target, VaultClient, nodes::Learned};
use crate::{
    adapters::vault::{
        key_path::Namespace,
        login::port::CredentialDigest,
        refusal::{Asked, Refusal},
        servers::{Answer, Failure, Request, does_not_serve},
        wire::Health,
    },
    domain::{
        error::{Code, KmsError},
        secret::Secret,
        time::Monotonic,
    },
    ports::{finding::Finding, telemetry::KeeperOperation},
};

/// The time between two checks of an endpoint that serves: less than the time for which an idle
/// connection is kept.
const CHECKED_EVERY: Duration = Duration::from_secs(30);

/// The time between two checks of an endpoint that does not serve. While others serve, no request
/// goes to it, so only a check notices that it is back.
const RECHECKED_EVERY: Duration = Duration::from_secs(3);

/// How long a login searches for the active node, and the pause between two searches. The time
/// covers most of an election.
const ACTIVE_SEARCH_MAX: Duration = Duration::from_millis(1_200);
const ACTIVE_SEARCH_PAUSE: Duration = Duration::from_millis(200);

/// The largest number of health checks of a server that refused a credential.
const HEALTH_TRIES: usize = 3;

/// The health status of the active node.
const ACTIVE: u16 = 200;

/// The health request. It needs no token, and the server accepts it only in the root namespace.
const HEALTH: Request<'static> = Request {
    method: Method::GET,
    path: "sys/health",
    namespace: Namespace::ROOT,
    token: None,
    body: None,
};

impl VaultClient {
    /// Checks each endpoint regularly and never returns. With a single endpoint, returns at once.
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
            for endpoint in 0..self.servers.addresses().len() {
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

    /// Returns the target for a login: the active node. A standby may not know a new secret ID yet,
    /// and its refusal would count. If no endpoint reports for 1.2 s that it is active, for example
    /// in an election or behind a load balancer, returns any endpoint. In the next 3 s it asks each
    /// endpoint only once.
    pub(in crate::adapters::vault) async fn at_active(&self, deadline: Monotonic) -> Target {
        if self.servers.addresses().len() < 2 {
            return Target::Any;
        }
        let now = self.clock.now();
        let waits = self.nodes(|nodes| nodes.may_wait_for_active(now));
        let until = if waits { now.after(ACTIVE_SEARCH_MAX).min(deadline) } else { now };
        loop {
            let left = deadline.since(self.clock.now());
            if let Some(active) = self.active(left.min(TRY_MIN)).await {
                return Target::Endpoint(active);
            }
            let now = self.clock.now();
            if now.after(ACTIVE_SEARCH_PAUSE) > until {
                if waits {
                    self.nodes(|nodes| nodes.found_none_active(now));
                }
                return Target::Any;
            }
            self.clock.sleep(ACTIVE_SEARCH_PAUSE).await;
        }
    }

    /// Returns the endpoint that reports that it is active, if there is one. Waits for all answers,
    /// at most `limit`.
    async fn active(&self, limit: Duration) -> Option<usize> {
        let now = self.clock.now();
        let serving = self.nodes(|nodes| nodes.serving(now).collect::<Vec<_>>());
        let asked = serving.into_iter().map(|endpoint| async move {
            let status = self.health(endpoint, limit).await;
            (status == Ok(ACTIVE)).then_some(endpoint)
        });
        join_all(asked).await.into_iter().flatten().next()
    }

    /// Checks an endpoint and updates its breaker. Does not change the preferred endpoint.
    async fn check(&self, endpoint: usize) {
        let limit = self.servers.request_timeout().min(CHECK_MAX);
        match self.health(endpoint, limit).await {
            Ok(_) => self.learn(endpoint, Learned::Healthy),
            Err(error) => self.learn(endpoint, Learned::Unhealthy(&error)),
        }
    }

    async fn ask_health(
        &self,
        endpoint: usize,
        limit: Duration,
    ) -> Result<Answer<Health>, Failure> {
        self.servers.exchange(endpoint, &HEALTH, None, limit, Duration::ZERO).await
    }

    /// Sends a health check to an endpoint and records its cluster. Waits at most `limit`. Returns
    /// the HTTP status.
    ///
    /// # Errors
    /// Returns why the endpoint cannot be used: it belongs to another cluster, does not serve, or
    /// its answer is not that of a keeper.
    pub(super) async fn health(&self, endpoint: usize, limit: Duration) -> Result<u16, KmsError> {
        let answer = self.ask_health(endpoint, limit).await;
        let answer = answer.map_err(|failure| failure.into_error(Asked::Health))?;
        // A standby that serves answers 429 or 473.
        if does_not_serve(answer.status) {
            return Err(Refusal::of_health(answer.status).into_error(Asked::Health));
        }
        let cluster = answer.value.cluster_id.ok_or_else(|| {
            let address = self.servers.addresses().get(endpoint).map(ToString::to_string);
            let address = address.unwrap_or_default();
            KmsError::new(
                Code::Intermediary,
                format!("{address} does not report the id of its cluster"),
                "check that the address is a node of the keeper, and that the node is initialised",
            )
        })?;
        self.learn(endpoint, Learned::OfCluster(&cluster));
        match self.nodes(|nodes| nodes.foreign(endpoint)) {
            Some(foreign) => {
                // A new connection may reach a server of our cluster behind the same name.
                self.servers.reconnect(endpoint, None);
                Err(foreign)
            }
            None => Ok(answer.status),
        }
    }

    /// Returns whether the servers ignore namespaces. Asks the endpoints one by one, and returns
    /// what the first answer says. Returns `None` if no endpoint answers.
    pub(in crate::adapters::vault) async fn is_without_namespaces(&self) -> Option<bool> {
        let limit = self.servers.request_timeout().min(CHECK_MAX);
        for endpoint in 0..self.servers.addresses().len() {
            let answer = self.ask_health(endpoint, limit).await;
            if let Ok(answer) = answer {
                return Some(answer.value.is_without_namespaces());
            }
        }
        None
    }

    /// Waits for the first answer of an endpoint, and logs `warning` if the servers ignore
    /// namespaces.
    pub(in crate::adapters::vault) async fn warn_if_without_namespaces(&self, warning: &Finding) {
        loop {
            match self.is_without_namespaces().await {
                Some(true) => return warn!("{warning}"),
                Some(false) => return,
                None => self.clock.sleep(self.spread(RECHECKED_EVERY)).await,
            }
        }
    }

    /// Returns what the refusal of a login means. With several endpoints, it counts against the
    /// credential only if the server belongs to our cluster, or if all endpoints belong to one
    /// cluster. Otherwise the credential would not be tried for an hour because of a foreign server.
    pub(super) async fn judged_login<T>(
        &self,
        endpoint: usize,
        request: &Request<'_>,
        outcome: Result<T, Failure>,
        policy: CallPolicy,
    ) -> Result<T, Failure> {
        let refusal = match &outcome {
            Err(Failure::Refused(refusal)) if policy.operation == KeeperOperation::Login => refusal,
            _ => return outcome,
        };
        if refusal.is_about_the_node() || self.nodes(|nodes| nodes.len()) < 2 {
            return outcome;
        }
        // The name of the endpoint may lead to another server by now.
        let tries = if refusal.is_of_the_credential() { HEALTH_TRIES } else { 0 };
        for _ in 0..tries {
            let end = policy.deadline.after(policy.waits_longer);
            let left = end.since(self.clock.now()).min(self.servers.request_timeout());
            if self.health(endpoint, left).await.is_ok() {
                break;
            }
            if let Some(foreign) = self.nodes(|nodes| nodes.foreign(endpoint)) {
                return Err(Failure::Disregarded(foreign));
            }
        }
        self.learn(endpoint, Learned::RefusedLogin(credential(request), refusal));
        self.earlier_refusal(endpoint, request, policy).map_or(outcome, Err)
    }

    /// Returns the failure of a login that must not be sent to `endpoint`, because its cluster
    /// refused the same credential. Returns `None` for other requests, and when our cluster is
    /// known.
    pub(super) fn earlier_refusal(
        &self,
        endpoint: usize,
        request: &Request<'_>,
        policy: CallPolicy,
    ) -> Option<Failure> {
        if policy.operation != KeeperOperation::Login || !self.nodes(|nodes| nodes.seeks_cluster())
        {
            return None;
        }
        let (credential, now) = (credential(request), self.clock.now());
        self.nodes(|nodes| nodes.refusal(endpoint, credential, now))
    }
}

/// Returns the digest of what a login sends.
fn credential(request: &Request<'_>) -> CredentialDigest {
    let body = CredentialDigest::of_bytes(request.body.as_deref().unwrap_or_default());
    body.with(request.token.map_or("", Secret::expose))
}
