//! Everything known about the servers of one cluster, as a pure state machine. It chooses the
//! endpoint for the next request, and records the results of requests.
//! Our cluster is the one that first accepts a credential. Until then it is not known, and each
//! endpoint that reports a cluster may be used. From then on an endpoint of another cluster gets
//! only health checks.

use std::time::Duration;

use super::{breaker::Breaker, refused_logins::RefusedLogins};
use crate::{
    adapters::vault::{
        address::VaultAddress, login::port::CredentialDigest, refusal::Refusal, servers::Failure,
        vocabulary::CLUSTER_FOREIGN,
    },
    domain::{
        error::{Code, KmsError},
        key::KekVersion,
        time::Monotonic,
    },
    ports::{keeper::EndpointView, telemetry::BreakerState},
};

/// How long an endpoint must lag behind the others before it counts as stale. A healthy replica
/// lags for milliseconds.
const STALE_AFTER: Duration = Duration::from_mins(1);

/// How long after a search that waited in vain for an active node other searches do not wait.
const NONE_ACTIVE_FOR: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct Node {
    address: VaultAddress,
    /// The id of the cluster that the endpoint itself reported last. `None` if it is not known. The
    /// endpoint then gets only health checks, unless it is the only one.
    cluster: Option<String>,
    breaker: Breaker,
    /// The number of requests in a row that failed by the endpoint's own fault. Health checks do not
    /// count: an endpoint that misses one is still tried first.
    failed_requests: u32,
    /// The last failure that was the endpoint's own fault, or page of an intermediary. Removed by the
    /// next answer.
    error: Option<KmsError>,
    /// Since when the endpoint has returned an older key version than other endpoints.
    behind_since: Option<Monotonic>,
    /// The error that says that the endpoint is stale, set after [`STALE_AFTER`].
    stale: Option<KmsError>,
}

impl Node {
    /// Returns the place among endpoints that may be used. A lower one is tried first.
    fn rank(&self) -> u32 {
        let is_closed = self.breaker.state() == BreakerState::Closed;
        if is_closed { self.failed_requests } else { u32::MAX }
    }
}

/// Which endpoint a request wants.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    /// The first endpoint of [`Nodes::serving`]. Endpoints in the list come last.
    Any(&'a [usize]),
    /// An endpoint that serves and is not in the list.
    Other(&'a [usize]),
    /// This endpoint, unless it belongs to another cluster. Its breaker is ignored.
    This(usize),
}

/// New information about an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum Learned<'a> {
    /// The endpoint answered a request, possibly with a refusal.
    Answered {
        /// Whether the request could go to any endpoint. The endpoint then becomes the preferred
        /// one.
        as_any: bool,
        /// Whether the endpoint accepted a credential. The first cluster that does is ours.
        accepted: bool,
    },
    /// The endpoint refused a login with this credential.
    RefusedLogin(CredentialDigest, &'a Refusal),
    /// An intermediary answered, possibly to this request only. The endpoint is used as before, and
    /// observers see the error until the next answer. If a probe runs, the next request may be one too.
    Page(&'a KmsError),
    /// A request failed by the endpoint's own fault.
    Failed(&'a KmsError),
    /// A health check failed.
    Unhealthy(&'a KmsError),
    /// A health check passed. It closes an open breaker, and does not reset the failure count of a
    /// closed one. The failed requests no longer count for the order.
    Healthy,
    /// The endpoint reported in a health check that it belongs to the cluster with this id.
    OfCluster(&'a str),
    /// The endpoint returned key version `latest`, and `newest` is the newest known version.
    Showed {
        /// The newest version that the endpoint knows.
        latest: KekVersion,
        /// The newest version that any endpoint knows.
        newest: KekVersion,
    },
}

/// A change that the client reports to telemetry and the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NodeChange {
    /// The breaker of this endpoint has a new state.
    Breaker(usize, BreakerState),
    /// An endpoint belongs to another cluster than ours.
    Foreign(KmsError),
    /// Two endpoints belong to different clusters. Which one is ours is not known.
    Conflict(KmsError),
    /// The endpoint is stale, or with `None` has caught up.
    Stale(usize, Option<KmsError>),
}

/// All configured endpoints.
#[derive(Debug)]
pub(super) struct Nodes {
    all: Vec<Node>,
    preferred: usize,
    /// The id of our cluster: the first one that accepted a credential. Always `None` with a single
    /// endpoint, because that one is not asked for its cluster.
    ours: Option<String>,
    /// The logins that were refused while our cluster was not known.
    refused: RefusedLogins,
    /// When a search last waited in vain for an active node.
    none_active: Option<Monotonic>,
    changes: Vec<NodeChange>,
}

impl Nodes {
    /// Creates the state for `addresses`. A single endpoint needs no verification of its cluster.
    pub(super) fn new(addresses: Vec<VaultAddress>) -> Self {
        let node = |address| Node {
            address,
            cluster: None,
            breaker: Breaker::default(),
            failed_requests: 0,
            error: None,
            behind_since: None,
            stale: None,
        };
        let all = addresses.into_iter().map(node).collect();
        Self {
            all,
            preferred: 0,
            ours: None,
            refused: RefusedLogins::default(),
            none_active: None,
            changes: Vec::new(),
        }
    }

    /// Returns the number of endpoints.
    pub(super) const fn len(&self) -> usize {
        self.all.len()
    }

    /// Chooses the endpoint for the next request. If its breaker is open, the request becomes the
    /// single probe of the breaker.
    ///
    /// # Errors
    /// If no endpoint may be used, returns why: the error of the preferred one, or else of the next
    /// one.
    pub(super) fn choose(&mut self, wanted: Wanted<'_>, now: Monotonic) -> Result<usize, KmsError> {
        let chosen = match wanted {
            Wanted::This(index) => {
                self.all.get(index).filter(|node| !self.is_foreign(node)).map(|_| index)
            }
            Wanted::Other(avoided) => self.first(avoided, now),
            Wanted::Any(avoided) => self.first(avoided, now).or_else(|| self.first(&[], now)),
        };
        let Some(index) = chosen else { return Err(self.why_none()) };
        self.probe_if_open(index, now);
        Ok(index)
    }

    /// Returns whether a health check may be sent to endpoint `index` now. If its breaker is open,
    /// the check becomes the single probe. Without `all`, admits only endpoints that do not serve
    /// or belong to another cluster.
    pub(super) fn choose_for_health(&mut self, index: usize, all: bool, now: Monotonic) -> bool {
        let admits = self.all.get(index).is_some_and(|node| {
            let serves = node.breaker.state() == BreakerState::Closed && !self.is_foreign(node);
            node.breaker.admits(now) && (all || !serves)
        });
        if admits {
            self.probe_if_open(index, now);
        }
        admits
    }

    /// Returns the endpoints that requests may be sent to: those with the fewest failed requests
    /// since the last success first. Among equals the preferred one comes first, then the others in
    /// the configured order. While our cluster is not known, endpoints of a cluster that refused a
    /// login come last.
    pub(super) fn serving(&self, now: Monotonic) -> impl Iterator<Item = usize> + '_ {
        self.in_order().into_iter().filter(move |index| self.serves(*index, now))
    }

    /// Returns the first endpoint of [`Nodes::serving`] that is not in `avoided`.
    fn first(&self, avoided: &[usize], now: Monotonic) -> Option<usize> {
        (0..self.all.len())
            .filter(|index| self.serves(*index, now) && !avoided.contains(index))
            .min_by_key(|index| self.place(*index))
    }

    fn serves(&self, index: usize, now: Monotonic) -> bool {
        let admits = |node: &Node| node.breaker.admits(now) && !self.is_foreign(node);
        self.all.get(index).is_some_and(admits)
    }

    /// Returns the endpoints after the first one that serves. Leaves out endpoints whose breaker is
    /// not closed, because the caller waits for all answers. Returns none while our cluster is not
    /// known, because answers of two clusters must not be compared.
    pub(super) fn healthy_secondaries(&self, now: Monotonic) -> Vec<usize> {
        if self.ours.is_none() {
            return Vec::new();
        }
        let closed = |index: &usize| {
            self.all.get(*index).is_some_and(|n| n.breaker.state() == BreakerState::Closed)
        };
        self.serving(now).skip(1).filter(closed).collect()
    }

    /// Returns whether a search may wait for an active node now: not within [`NONE_ACTIVE_FOR`]
    /// after a search that waited in vain. Behind a load balancer no search finds one, and a login
    /// of several requests must not wait for each.
    pub(super) fn may_wait_for_active(&self, now: Monotonic) -> bool {
        self.none_active.is_none_or(|since| now.since(since) >= NONE_ACTIVE_FOR)
    }

    /// Records that a search waited in vain until `now`.
    pub(super) const fn found_none_active(&mut self, now: Monotonic) {
        self.none_active = Some(now);
    }

    /// Returns the number of endpoints that serve now, without `index` and those in `avoided`.
    pub(super) fn others(&self, index: usize, avoided: &[usize], now: Monotonic) -> usize {
        (0..self.all.len())
            .filter(|other| *other != index && !avoided.contains(other) && self.serves(*other, now))
            .count()
    }

    /// Returns the endpoint that `location`, the target of a redirect, points to.
    pub(super) fn at_location(&self, location: &str) -> Option<usize> {
        self.all.iter().position(|node| node.address.is_origin_of(location))
    }

    /// Returns whether endpoint `index` must report its cluster before it gets a request.
    pub(super) fn is_unverified(&self, index: usize) -> bool {
        self.all.len() > 1 && self.all.get(index).is_some_and(|node| node.cluster.is_none())
    }

    /// Returns the error of endpoint `index` if it belongs to another cluster than ours.
    pub(super) fn foreign(&self, index: usize) -> Option<KmsError> {
        let node = self.all.get(index).filter(|node| self.is_foreign(node))?;
        Some(KmsError::new(
            CLUSTER_FOREIGN,
            format!(
                "{} belongs to another cluster than the one that this process uses",
                node.address
            ),
            "remove it from --vault-address; if the whole cluster was replaced, restart this process",
        ))
    }

    /// Returns whether our cluster is still to be found, among several endpoints.
    pub(super) fn seeks_cluster(&self) -> bool {
        self.all.len() > 1 && self.ours.is_none()
    }

    /// Returns the failure of a login with `credential` at endpoint `index` at `now`, if the cluster
    /// of the endpoint refused this credential before. The login must then not be sent.
    ///
    /// While other endpoints may belong to another cluster, the refusal does not count against the
    /// credential.
    pub(super) fn refusal(
        &self,
        index: usize,
        credential: CredentialDigest,
        now: Monotonic,
    ) -> Option<Failure> {
        let node = self.all.get(index)?;
        let cluster = node.cluster.as_deref()?;
        let refusal = self.refused.of(cluster, credential, now)?;
        if self.all.iter().all(|node| node.cluster.as_deref() == Some(cluster)) {
            return Some(Failure::Refused(refusal.clone()));
        }
        Some(Failure::Disregarded(KmsError::new(
            Code::LoginRefused,
            format!(
                "{} refuses the credential, and not all addresses of --vault-address are known to \
                 belong to its cluster",
                node.address
            ),
            "correct the role ID or the secret ID; check that `vault status` shows the same Cluster \
             ID for each address. Another credential, or an address of another cluster, is tried \
             within a minute",
        )))
    }

    /// Records new information about endpoint `index` at `now`. `spread` in `[0, 1)` varies how
    /// long a breaker stays open, so that several processes do not probe together.
    pub(super) fn learn(
        &mut self,
        index: usize,
        learned: Learned<'_>,
        now: Monotonic,
        spread: f64,
    ) {
        let is_foreign = self.all.get(index).is_some_and(|node| self.is_foreign(node));
        let is_seeking = self.seeks_cluster();
        let Some(node) = self.all.get_mut(index) else { return };
        let before = node.breaker;
        match learned {
            Learned::Answered { as_any, accepted } => {
                node.error = None;
                node.failed_requests = 0;
                node.breaker.succeeded();
                if as_any {
                    self.preferred = index;
                }
                if accepted {
                    self.found_cluster_of(index);
                }
            }
            Learned::RefusedLogin(credential, refusal) => {
                if let Some(cluster) = node.cluster.clone().filter(|_| is_seeking) {
                    self.refused.keep(cluster, credential, refusal.clone(), now);
                }
            }
            Learned::Page(error) => {
                node.error = Some(error.clone());
                node.breaker.unjudged(now);
            }
            Learned::Healthy => {
                node.failed_requests = 0;
                if before.state() != BreakerState::Closed {
                    node.error = None;
                    node.breaker.succeeded();
                }
            }
            Learned::Failed(error) | Learned::Unhealthy(error) => {
                if matches!(learned, Learned::Failed(_)) {
                    node.failed_requests = node.failed_requests.saturating_add(1);
                }
                node.error = Some(error.clone());
                node.breaker.failed(now, spread);
                // Another server may have the same address after an outage, so verify it again.
                if node.breaker.state() != BreakerState::Closed && !is_foreign {
                    node.cluster = None;
                }
            }
            Learned::OfCluster(id) => self.reported(index, id),
            Learned::Showed { latest, newest } => self.compare(index, latest, newest, now),
        }
        let after = self.all.get(index).map_or(before, |node| node.breaker);
        if after != before {
            self.changes.push(NodeChange::Breaker(index, after.state()));
        }
    }

    /// Returns the changes since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<NodeChange> {
        std::mem::take(&mut self.changes)
    }

    /// Returns the state of each endpoint for observers.
    pub(super) fn view(&self) -> Vec<EndpointView> {
        let view = |(index, node): (usize, &Node)| EndpointView {
            address: node.address.to_string(),
            breaker: node.breaker.state().as_str(),
            preferred: index == self.preferred,
            last_error: self
                .foreign(index)
                .or_else(|| node.error.clone())
                .or_else(|| self.conflict(index))
                .or_else(|| node.stale.clone()),
        };
        self.all.iter().enumerate().map(view).collect()
    }

    /// Returns whether `node` reported another cluster than ours.
    fn is_foreign(&self, node: &Node) -> bool {
        matches!((&self.ours, &node.cluster), (Some(ours), Some(reported)) if ours != reported)
    }

    /// Returns the error that endpoint `index` and another one belong to different clusters, while
    /// it is not known which one is ours.
    fn conflict(&self, index: usize) -> Option<KmsError> {
        let node =
            self.all.get(index).filter(|node| self.ours.is_none() && node.cluster.is_some())?;
        let differs = |other: &&Node| other.cluster.is_some() && other.cluster != node.cluster;
        let other = self.all.iter().find(differs)?;
        Some(KmsError::new(
            CLUSTER_FOREIGN,
            format!("{} and {} belong to different clusters", node.address, other.address),
            "compare the Cluster ID that `vault status` shows for each address, and remove the wrong \
             addresses from --vault-address",
        ))
    }

    fn reported(&mut self, index: usize, cluster: &str) {
        let had_conflict = (0..self.all.len()).any(|index| self.conflict(index).is_some());
        let Some(node) = self.all.get_mut(index) else { return };
        if node.cluster.as_deref() == Some(cluster) {
            return;
        }
        node.cluster = Some(cluster.to_owned());
        if let Some(error) = self.foreign(index) {
            self.changes.push(NodeChange::Foreign(error));
        } else if let Some(error) = self.conflict(index).filter(|_| !had_conflict) {
            self.changes.push(NodeChange::Conflict(error));
        }
    }

    /// Records that endpoint `index` accepted a credential. Its cluster is ours if none was found
    /// before.
    fn found_cluster_of(&mut self, index: usize) {
        if self.ours.is_some() {
            return;
        }
        self.ours = self.all.get(index).and_then(|node| node.cluster.clone());
        if self.ours.is_some() {
            self.refused.clear();
            let foreign = (0..self.all.len()).filter_map(|index| self.foreign(index));
            let foreign: Vec<_> = foreign.map(NodeChange::Foreign).collect();
            self.changes.extend(foreign);
        }
    }

    fn compare(&mut self, index: usize, latest: KekVersion, newest: KekVersion, now: Monotonic) {
        let Some(node) = self.all.get_mut(index) else { return };
        if latest == newest {
            node.behind_since = None;
            if node.stale.take().is_some() {
                self.changes.push(NodeChange::Stale(index, None));
            }
            return;
        }
        let since = *node.behind_since.get_or_insert(now);
        if node.stale.is_some() || now.since(since) < STALE_AFTER {
            return;
        }
        let error = KmsError::new(
            Code::VersionNotYet,
            format!(
                "{} still shows key version {latest} where other endpoints show version {newest}",
                node.address
            ),
            "restart that node of the keeper, before the key is rotated again",
        );
        node.stale = Some(error.clone());
        self.changes.push(NodeChange::Stale(index, Some(error)));
    }

    fn probe_if_open(&mut self, index: usize, now: Monotonic) {
        let Some(node) = self.all.get_mut(index) else { return };
        if node.breaker.state() != BreakerState::Closed {
            node.breaker.sent(now);
            self.changes.push(NodeChange::Breaker(index, BreakerState::HalfOpen));
        }
    }

    /// Returns all endpoints in the order of their places.
    fn in_order(&self) -> Vec<usize> {
        let mut order: Vec<_> = (0..self.all.len()).collect();
        order.sort_by_key(|index| self.place(*index));
        order
    }

    /// Returns the place of endpoint `index` in the order. Those of clusters that refused a login
    /// come last, the earliest refusal first. Among the others, those with fewer failed requests
    /// come first, so that one of several that serves is found although the others hang. Among
    /// equals the preferred one comes first, then the configured order.
    fn place(&self, index: usize) -> impl Ord + use<> {
        let node = self.all.get(index);
        let cluster = node.and_then(|node| node.cluster.as_deref());
        let refused_at = cluster.and_then(|id| self.refused.last_of(id));
        (refused_at, node.map(Node::rank), index != self.preferred, index)
    }

    /// Returns why no endpoint can be chosen. Prefers the error of an endpoint of our cluster: an
    /// outage of the cluster must not look like a foreign endpoint.
    fn why_none(&self) -> KmsError {
        let error = |index| {
            let node = self.all.get(index).filter(|node| !self.is_foreign(node))?;
            node.error.clone()
        };
        let order = self.in_order();
        let why = order.iter().copied().find_map(error);
        why.or_else(|| order.into_iter().find_map(|index| self.foreign(index))).unwrap_or_else(
            || {
                KmsError::new(
                    Code::KeeperUnreachable,
                    "no endpoint accepts requests now",
                    "wait a few seconds",
                )
            },
        )
    }
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
