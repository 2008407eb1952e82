//! Everything known about the servers of one cluster: a pure state machine. It says which endpoint
//! the next request goes to, and learns from what became of each.

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

/// How long an endpoint must lag behind the others to be called stale. A replica lags for
/// milliseconds.
const STALE_AFTER: Duration = Duration::from_mins(1);

/// Which cluster an endpoint belongs to. Set by what the endpoint says of itself, by nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Membership {
    /// It must say it before it is asked for anything else.
    Unverified,
    /// It is of our cluster, or is the only endpoint.
    Member,
    /// It is of another cluster: it is asked how it is, and for nothing else.
    Foreign(KmsError),
}

#[derive(Debug)]
struct Node {
    address: VaultAddress,
    membership: Membership,
    breaker: Breaker,
    /// Why the last request failed by the endpoint's own fault, until one works.
    error: Option<KmsError>,
    /// Since when it has shown an older key version than other endpoints.
    behind_since: Option<Monotonic>,
    /// That it is stale, once that has lasted.
    stale: Option<KmsError>,
}

impl Node {
    /// Whether requests may go to it.
    fn serves(&self, now: Monotonic) -> bool {
        self.breaker.admits(now) && !matches!(self.membership, Membership::Foreign(_))
    }
}

/// Which endpoint a request wants.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    /// The preferred one, or another one that serves. Those in the list come last.
    Any(&'a [usize]),
    /// One that serves and is not in the list.
    Other(&'a [usize]),
    /// This one, unless it is of another cluster. Its breaker is not asked.
    This(usize),
}

/// What a request, or an endpoint, told of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum Learned<'a> {
    /// It answered a request, be it with a refusal.
    Answered {
        /// Whether any endpoint would have been asked: it is the preferred one from now on.
        as_any: bool,
    },
    /// A request failed by the endpoint's own fault.
    Failed(&'a KmsError),
    /// A health check passed. It closes an open breaker and leaves the count of a closed one.
    Healthy,
    /// It says that it is of this cluster.
    OfCluster(&'a str),
    /// It showed key version `latest` where `newest` is known.
    Showed {
        /// The newest version that it knows.
        latest: KekVersion,
        /// The newest version that any endpoint knows.
        newest: KekVersion,
    },
}

/// What changed, for those who tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NodeChange {
    /// The breaker of this endpoint.
    Breaker(usize, BreakerState),
    /// An endpoint turned out to be of another cluster.
    Foreign(KmsError),
    /// An endpoint turned out to be stale, or with `None` has caught up.
    Stale(usize, Option<KmsError>),
}

/// All endpoints of one cluster.
#[derive(Debug)]
pub(super) struct Nodes {
    all: Vec<Node>,
    preferred: usize,
    /// The cluster's id, once an endpoint of several has told it.
    cluster: Option<String>,
    changes: Vec<NodeChange>,
}

impl Nodes {
    /// Endpoints that were not asked yet. A single one needs no verification.
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

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.all.len()
    }

    /// The endpoint for the next request. Where its breaker is open, the request is the one probe.
    ///
    /// # Errors
    /// When none may be asked: why the preferred one, or else the next one, may not.
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

    /// Whether a health check may go to endpoint `index` now, which is then the breaker's one probe.
    /// Without `all`, only where the endpoint does not serve or is of another cluster.
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

    /// The endpoints that requests may go to: the preferred one, then the others in the operator's
    /// order.
    pub(super) fn serving(&self, now: Monotonic) -> impl Iterator<Item = usize> + '_ {
        self.preferred_first()
            .filter(move |index| self.all.get(*index).is_some_and(|node| node.serves(now)))
    }

    /// The endpoints other than the first one that serves, without those whose breaker is not
    /// closed: what waits for their answers must not wait for long.
    pub(super) fn healthy_secondaries(&self, now: Monotonic) -> Vec<usize> {
        let closed = |index: &usize| {
            self.all.get(*index).is_some_and(|n| n.breaker.state() == BreakerState::Closed)
        };
        self.serving(now).skip(1).filter(closed).collect()
    }

    /// How many endpoints could be asked now beside `index` and those in `avoided`.
    pub(super) fn others(&self, index: usize, avoided: &[usize], now: Monotonic) -> usize {
        self.serving(now).filter(|other| *other != index && !avoided.contains(other)).count()
    }

    /// The endpoint at which `location`, of a redirection, points.
    pub(super) fn at_location(&self, location: &str) -> Option<usize> {
        self.all.iter().position(|node| node.address.is_origin_of(location))
    }

    /// Whether endpoint `index` must say of which cluster it is before it is asked for anything.
    pub(super) fn is_unverified(&self, index: usize) -> bool {
        self.all.get(index).is_some_and(|node| node.membership == Membership::Unverified)
    }

    /// Why endpoint `index` is not to be used, where it is of another cluster.
    pub(super) fn foreign(&self, index: usize) -> Option<&KmsError> {
        match &self.all.get(index)?.membership {
            Membership::Foreign(error) => Some(error),
            Membership::Unverified | Membership::Member => None,
        }
    }

    /// Takes in what was learnt of endpoint `index` at `now`. `spread` in `[0, 1)` keeps the rests of
    /// several processes apart.
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
                // Another server may stand there when it is back.
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

    /// What changed since this was last called.
    pub(super) fn take_changes(&mut self) -> Vec<NodeChange> {
        std::mem::take(&mut self.changes)
    }

    /// What is shown of each endpoint.
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
                format!("{} is of another cluster than the other endpoints", node.address),
                "take it out of --vault-address; if all of the cluster were replaced, restart this process",
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

    /// The error of an endpoint of this cluster, where there is one: while the cluster is out, that
    /// another endpoint is foreign refuses nothing.
    fn why_none(&self) -> KmsError {
        let foreign = |index| self.foreign(index).cloned();
        let error = |index| {
            let node = self.all.get(index).filter(|_| self.foreign(index).is_none())?;
            node.error.clone()
        };
        let why = self.preferred_first().find_map(error);
        why.or_else(|| self.preferred_first().find_map(foreign)).unwrap_or_else(|| {
            KmsError::new(Code::KeeperUnreachable, "no endpoint can be asked", "wait a moment")
        })
    }
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
