//! Everything known about the servers of one cluster, as a pure state machine. It chooses the
//! endpoint for the next request, and records the results of requests.

use std::time::Duration;

use super::breaker::Breaker;
use crate::{
    adapters::vault::{address::VaultAddress, vocabulary::CLUSTER_FOREIGN},
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

/// Whether an endpoint belongs to our cluster. Only the endpoint's own health answer sets it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Membership {
    /// Not known. The endpoint gets only health checks until it reports its cluster.
    Unverified,
    /// The endpoint belongs to our cluster, or is the only endpoint.
    Member,
    /// The endpoint belongs to another cluster. It gets only health checks.
    Foreign(KmsError),
}

#[derive(Debug)]
struct Node {
    address: VaultAddress,
    membership: Membership,
    breaker: Breaker,
    /// The last failure that was the endpoint's own fault. Removed by the next success.
    error: Option<KmsError>,
    /// Since when the endpoint has returned an older key version than other endpoints.
    behind_since: Option<Monotonic>,
    /// The error that says that the endpoint is stale, set after [`STALE_AFTER`].
    stale: Option<KmsError>,
}

impl Node {
    /// Returns whether requests may be sent to this endpoint.
    fn serves(&self, now: Monotonic) -> bool {
        self.breaker.admits(now) && !matches!(self.membership, Membership::Foreign(_))
    }
}

/// Which endpoint a request wants.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    /// The preferred endpoint, or another one that serves. Endpoints in the list come last.
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
    },
    /// A request failed by the endpoint's own fault.
    Failed(&'a KmsError),
    /// A health check passed. It closes an open breaker, and does not reset the failure count of a
    /// closed one.
    Healthy,
    /// The endpoint reported that it belongs to the cluster with this id.
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
    /// An endpoint belongs to another cluster.
    Foreign(KmsError),
    /// The endpoint is stale, or with `None` has caught up.
    Stale(usize, Option<KmsError>),
}

/// All endpoints of one cluster.
#[derive(Debug)]
pub(super) struct Nodes {
    all: Vec<Node>,
    preferred: usize,
    /// The cluster's id, taken from the first endpoint that reported one.
    cluster: Option<String>,
    changes: Vec<NodeChange>,
}

impl Nodes {
    /// Creates the state for `addresses`. Several endpoints start unverified. A single one needs no
    /// verification.
    pub(super) fn new(addresses: Vec<VaultAddress>) -> Self {
        let is_single = addresses.len() == 1;
        let node = |address| Node {
            address,
            membership: if is_single { Membership::Member } else { Membership::Unverified },
            breaker: Breaker::default(),
            error: None,
            behind_since: None,
            stale: None,
        };
        let all = addresses.into_iter().map(node).collect();
        Self { all, preferred: 0, cluster: None, changes: Vec::new() }
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
                let node = self.all.get(index);
                node.filter(|node| !matches!(node.membership, Membership::Foreign(_)))
                    .map(|_| index)
            }
            Wanted::Other(avoided) => self.serving(now).find(|index| !avoided.contains(index)),
            Wanted::Any(avoided) => self
                .serving(now)
                .find(|index| !avoided.contains(index))
                .or_else(|| self.serving(now).next()),
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
            let serves = node.breaker.state() == BreakerState::Closed
                && !matches!(node.membership, Membership::Foreign(_));
            node.breaker.admits(now) && (all || !serves)
        });
        if admits {
            self.probe_if_open(index, now);
        }
        admits
    }

    /// Returns the endpoints that requests may be sent to: the preferred one, then the others in
    /// the configured order.
    pub(super) fn serving(&self, now: Monotonic) -> impl Iterator<Item = usize> + '_ {
        self.preferred_first()
            .filter(move |index| self.all.get(*index).is_some_and(|node| node.serves(now)))
    }

    /// Returns the endpoints after the first one that serves. Leaves out endpoints whose breaker is
    /// not closed, because the caller waits for all answers.
    pub(super) fn healthy_secondaries(&self, now: Monotonic) -> Vec<usize> {
        let closed = |index: &usize| {
            self.all.get(*index).is_some_and(|n| n.breaker.state() == BreakerState::Closed)
        };
        self.serving(now).skip(1).filter(closed).collect()
    }

    /// Returns the number of endpoints that serve now, without `index` and those in `avoided`.
    pub(super) fn others(&self, index: usize, avoided: &[usize], now: Monotonic) -> usize {
        self.serving(now).filter(|other| *other != index && !avoided.contains(other)).count()
    }

    /// Returns the endpoint that `location`, the target of a redirect, points to.
    pub(super) fn at_location(&self, location: &str) -> Option<usize> {
        self.all.iter().position(|node| node.address.is_origin_of(location))
    }

    /// Returns whether the cluster of endpoint `index` must be verified before it gets a request.
    pub(super) fn is_unverified(&self, index: usize) -> bool {
        self.all.get(index).is_some_and(|node| node.membership == Membership::Unverified)
    }

    /// Returns the error of endpoint `index` if it belongs to another cluster.
    pub(super) fn foreign(&self, index: usize) -> Option<&KmsError> {
        match &self.all.get(index)?.membership {
            Membership::Foreign(error) => Some(error),
            Membership::Unverified | Membership::Member => None,
        }
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
        let several = self.all.len() > 1;
        let Some(node) = self.all.get_mut(index) else { return };
        let before = node.breaker;
        match learned {
            Learned::Answered { as_any } => {
                node.error = None;
                node.breaker.succeeded();
                if as_any {
                    self.preferred = index;
                }
            }
            Learned::Healthy if before.state() != BreakerState::Closed => {
                node.error = None;
                node.breaker.succeeded();
            }
            Learned::Healthy => (),
            Learned::Failed(error) => {
                node.error = Some(error.clone());
                node.breaker.failed(now, spread);
                // Another server may have the same address after an outage, so verify it again.
                if several
                    && node.breaker.state() != BreakerState::Closed
                    && node.membership == Membership::Member
                {
                    node.membership = Membership::Unverified;
                }
            }
            Learned::OfCluster(id) => self.verify(index, id),
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
                .or(node.error.as_ref())
                .or(node.stale.as_ref())
                .cloned(),
        };
        self.all.iter().enumerate().map(view).collect()
    }

    fn verify(&mut self, index: usize, cluster: &str) {
        let is_ours = self.cluster.as_deref().is_none_or(|known| known == cluster);
        let Some(node) = self.all.get_mut(index) else { return };
        if is_ours {
            node.membership = Membership::Member;
            self.cluster = Some(cluster.to_owned());
        } else if !matches!(node.membership, Membership::Foreign(_)) {
            let error = KmsError::new(
                CLUSTER_FOREIGN,
                format!("{} belongs to another cluster than the other endpoints", node.address),
                "remove it from --vault-address; if the whole cluster was replaced, restart this process",
            );
            node.membership = Membership::Foreign(error.clone());
            self.changes.push(NodeChange::Foreign(error));
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

    fn preferred_first(&self) -> impl Iterator<Item = usize> + '_ {
        let others = (0..self.all.len()).filter(|index| *index != self.preferred);
        std::iter::once(self.preferred).chain(others)
    }

    /// Returns why no endpoint can be chosen. Prefers the error of an endpoint of our cluster: an
    /// outage of the cluster must not look like a foreign endpoint.
    fn why_none(&self) -> KmsError {
        let foreign = |index| self.foreign(index).cloned();
        let error = |index| {
            let node = self.all.get(index).filter(|_| self.foreign(index).is_none())?;
            node.error.clone()
        };
        let why = self.preferred_first().find_map(error);
        why.or_else(|| self.preferred_first().find_map(foreign)).unwrap_or_else(|| {
            KmsError::new(
                Code::KeeperUnreachable,
                "no endpoint accepts requests now",
                "wait a few seconds",
            )
        })
    }
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
