//! The endpoints of one cluster: which one is asked, and which are left alone for now.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::breaker::Breaker;
use crate::{
    adapters::vault::address::VaultAddress,
    domain::{
        error::{Code, KmsError},
        key::KekVersion,
        time::Monotonic,
    },
    ports::{
        clock::Clock,
        telemetry::{BreakerState, Event, Telemetry},
    },
};

/// How long an endpoint must be behind the others to be called stale. A replica is for milliseconds.
const STALE_AFTER: Duration = Duration::from_mins(1);

/// What is known of an endpoint's membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Membership {
    /// It has not been asked since it last failed.
    Unknown,
    /// It is of the cluster, or is the only endpoint.
    Known,
}

#[derive(Debug)]
struct Tracking {
    breaker: Breaker,
    membership: Membership,
    last_error: Option<KmsError>,
    /// Since when it has told of an older key version than others did.
    behind_since: Option<Monotonic>,
    /// That it is stale, once that has lasted.
    stale: Option<KmsError>,
}

impl Tracking {
    fn new(membership: Membership) -> Self {
        let breaker = Breaker::default();
        Self { breaker, membership, last_error: None, behind_since: None, stale: None }
    }

    /// Whether it was of another cluster when it was last asked.
    fn is_foreign(&self) -> bool {
        self.last_error.as_ref().is_some_and(|error| error.code() == Code::ClusterForeign)
    }

    /// Whether requests may go to it: those of another cluster are greeted, and nothing else.
    fn may_be_asked(&self, now: Monotonic) -> bool {
        self.breaker.admits(now) && !self.is_foreign()
    }
}

#[derive(Debug)]
struct Endpoint {
    address: VaultAddress,
    tracking: Mutex<Tracking>,
}

impl Endpoint {
    fn track(&self) -> MutexGuard<'_, Tracking> {
        self.tracking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How an endpoint is, for those who look on.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// Where it is.
    pub address: String,
    /// Whether it is asked.
    pub breaker: BreakerState,
    /// Whether it is asked first.
    pub preferred: bool,
    /// Why the last request to it failed, until one works; or that it is stale.
    pub last_error: Option<KmsError>,
}

/// All endpoints of one cluster.
#[derive(Debug)]
pub(super) struct Endpoints {
    all: Vec<Endpoint>,
    preferred: AtomicUsize,
    /// The cluster's id, once an endpoint of several has told it.
    cluster: Mutex<Option<String>>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<dyn Telemetry>,
}

impl Endpoints {
    /// Endpoints that were not asked yet. With a single one, nothing has to be told apart.
    pub(super) fn new(
        addresses: Vec<VaultAddress>,
        clock: Arc<dyn Clock>,
        telemetry: Arc<dyn Telemetry>,
    ) -> Self {
        let membership = if addresses.len() > 1 { Membership::Unknown } else { Membership::Known };
        let endpoint =
            |address| Endpoint { address, tracking: Mutex::new(Tracking::new(membership)) };
        Self {
            all: addresses.into_iter().map(endpoint).collect(),
            preferred: AtomicUsize::new(0),
            cluster: Mutex::new(None),
            clock,
            telemetry,
        }
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether endpoint `index` may be asked how it is; where it was left alone, that finds out
    /// whether it is back.
    pub(super) fn may_be_greeted(&self, index: usize) -> bool {
        let now = self.clock.now();
        let admits = self.all.get(index).is_some_and(|e| e.track().breaker.admits(now));
        if admits {
            self.sent(index);
        }
        admits
    }

    /// The address of endpoint `index`.
    pub(super) fn address(&self, index: usize) -> Option<&VaultAddress> {
        self.all.get(index).map(|endpoint| &endpoint.address)
    }

    /// The endpoint to ask next: the one that last worked, or the first one that is not left alone
    /// and not among `avoided`; if all that are not left alone are avoided, one of those.
    ///
    /// # Errors
    /// When all are left alone: why the one that last worked was.
    pub(super) fn pick(&self, avoided: &[usize]) -> Result<usize, KmsError> {
        let admitted: Vec<_> = self.in_order().collect();
        let fresh = admitted.iter().find(|index| !avoided.contains(index));
        if let Some(index) = fresh.or_else(|| admitted.first()) {
            self.sent(*index);
            return Ok(*index);
        }
        let last = self
            .preferred_first()
            .find_map(|index| self.all.get(index)?.track().last_error.clone());
        Err(last.unwrap_or_else(|| {
            KmsError::new(Code::KeeperUnreachable, "no endpoint can be asked", "wait a moment")
        }))
    }

    /// The first endpoint that is neither left alone nor among `avoided`.
    pub(super) fn pick_new(&self, avoided: &[usize]) -> Option<usize> {
        let new = self.in_order().find(|index| !avoided.contains(index))?;
        self.sent(new);
        Some(new)
    }

    /// The endpoints that are not left alone now: the one that last worked, then the others.
    pub(super) fn in_order(&self) -> impl Iterator<Item = usize> + '_ {
        let now = self.clock.now();
        self.preferred_first().filter(move |index| {
            self.all.get(*index).is_some_and(|endpoint| endpoint.track().may_be_asked(now))
        })
    }

    /// The endpoints beside the one that is asked first, without those that are in doubt: who asks
    /// them may not wait for what they answer.
    pub(super) fn well_beside_the_first(&self) -> impl Iterator<Item = usize> + '_ {
        self.in_order().skip(1).filter(|index| self.is_well(*index))
    }

    /// Whether nothing speaks against endpoint `index`.
    pub(super) fn is_well(&self, index: usize) -> bool {
        let endpoint = self.all.get(index);
        endpoint.is_some_and(|e| e.track().breaker.state() == BreakerState::Closed)
    }

    fn preferred_first(&self) -> impl Iterator<Item = usize> + '_ {
        let preferred = self.preferred.load(Ordering::Relaxed);
        let others = (0..self.all.len()).filter(move |index| *index != preferred);
        std::iter::once(preferred).chain(others)
    }

    /// A request goes to endpoint `index`; while it is found out whether it is back, the only one.
    pub(super) fn sent(&self, index: usize) {
        let Some(endpoint) = self.all.get(index) else { return };
        let mut tracking = endpoint.track();
        if tracking.breaker.state() != BreakerState::Closed {
            tracking.breaker.sent(self.clock.now());
            drop(tracking);
            self.tell(index, BreakerState::HalfOpen);
        }
    }

    /// How many endpoints could be asked now beside `index` and those in `avoided`.
    pub(super) fn others(&self, index: usize, avoided: &[usize]) -> usize {
        self.in_order().filter(|other| *other != index && !avoided.contains(other)).count()
    }

    /// The endpoint at which `location`, of a redirection, points.
    pub(super) fn at_location(&self, location: &str) -> Option<usize> {
        self.all.iter().position(|endpoint| endpoint.address.is_origin_of(location))
    }

    /// Endpoint `index` answered; if it was asked as any would have been, it is asked first from now
    /// on.
    pub(super) fn succeeded(&self, index: usize, as_any: bool) {
        let Some(endpoint) = self.all.get(index) else { return };
        if as_any {
            self.preferred.store(index, Ordering::Relaxed);
        }
        let mut tracking = endpoint.track();
        tracking.last_error = None;
        if tracking.breaker != Breaker::default() {
            tracking.breaker.succeeded();
            drop(tracking);
            self.tell(index, BreakerState::Closed);
        }
    }

    /// Endpoint `index` says that it is well. Where requests have failed of late, they decide.
    pub(super) fn well(&self, index: usize) {
        let Some(endpoint) = self.all.get(index) else { return };
        let mut tracking = endpoint.track();
        if tracking.breaker.state() != BreakerState::Closed {
            tracking.breaker.succeeded();
            tracking.last_error = None;
            drop(tracking);
            self.tell(index, BreakerState::Closed);
        }
    }

    /// Endpoint `index` failed by its own fault. Whether it failed otherwise before.
    pub(super) fn failed(&self, index: usize, error: &KmsError) -> bool {
        let Some(endpoint) = self.all.get(index) else { return false };
        let (now, spread) = (self.clock.now(), self.clock.jitter());
        let mut tracking = endpoint.track();
        let before = tracking.last_error.replace(error.clone());
        tracking.breaker.failed(now, spread);
        let state = tracking.breaker.state();
        if self.all.len() > 1 && state != BreakerState::Closed {
            tracking.membership = Membership::Unknown;
        }
        drop(tracking);
        self.tell(index, state);
        before.is_none_or(|before| before.code() != error.code())
    }

    /// Whether endpoint `index` must tell its cluster's id before anything else is asked of it.
    pub(super) fn is_stranger(&self, index: usize) -> bool {
        self.all.get(index).is_some_and(|e| e.track().membership == Membership::Unknown)
    }

    /// Endpoint `index` says that it is of `cluster`.
    ///
    /// # Errors
    /// [`Code::ClusterForeign`] when another one said otherwise before.
    pub(super) fn introduce(&self, index: usize, cluster: &str) -> Result<(), KmsError> {
        let Some(endpoint) = self.all.get(index) else { return Ok(()) };
        let mut known = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_some_and(|known| known != cluster) {
            return Err(KmsError::new(
                Code::ClusterForeign,
                format!("{} is of another cluster than the other endpoints", endpoint.address),
                "take it out of --vault-address; if all of the cluster were replaced, restart this process",
            ));
        }
        *known = Some(cluster.to_owned());
        drop(known);
        let mut tracking = endpoint.track();
        tracking.membership = Membership::Known;
        if tracking.is_foreign() {
            tracking.last_error = None;
        }
        Ok(())
    }

    /// Endpoint `index` told of key version `latest` where `newest` was known. That it is stale, when
    /// that is news.
    pub(super) fn compared(
        &self,
        index: usize,
        latest: KekVersion,
        newest: KekVersion,
    ) -> Option<KmsError> {
        let endpoint = self.all.get(index)?;
        let now = self.clock.now();
        let mut tracking = endpoint.track();
        if latest == newest {
            (tracking.behind_since, tracking.stale) = (None, None);
            return None;
        }
        let since = *tracking.behind_since.get_or_insert(now);
        if tracking.stale.is_some() || now.since(since) < STALE_AFTER {
            return None;
        }
        let error = KmsError::new(
            Code::VersionNotYet,
            format!(
                "{} still tells of key version {latest} where other endpoints know version {newest}",
                endpoint.address
            ),
            "restart that node of the keeper, before the key is rotated again",
        );
        tracking.stale = Some(error.clone());
        Some(error)
    }

    /// How each endpoint is.
    pub(super) fn view(&self) -> Vec<EndpointView> {
        let preferred = self.preferred.load(Ordering::Relaxed);
        let view = |(index, endpoint): (usize, &Endpoint)| {
            let tracking = endpoint.track();
            EndpointView {
                address: endpoint.address.to_string(),
                breaker: tracking.breaker.state(),
                preferred: index == preferred,
                last_error: tracking.last_error.as_ref().or(tracking.stale.as_ref()).cloned(),
            }
        };
        self.all.iter().enumerate().map(view).collect()
    }

    fn tell(&self, endpoint: usize, state: BreakerState) {
        self.telemetry.record(Event::Breaker { endpoint, state });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::ports::{clock::MockClock, telemetry::MockTelemetry};

    const OLD: KekVersion = KekVersion::FIRST;
    const NEW: KekVersion = KekVersion::FIRST.next();

    /// Two endpoints, and the seconds on their clock.
    fn endpoints() -> (Endpoints, Arc<AtomicU64>) {
        let seconds = Arc::<AtomicU64>::default();
        let shown = Arc::clone(&seconds);
        let mut clock = MockClock::new();
        let now = move || Monotonic::at(Duration::from_secs(shown.load(Ordering::Relaxed)));
        clock.expect_now().returning(now);
        let addresses = ["https://a:8200", "https://b:8200"];
        let addresses = addresses.map(|text| VaultAddress::parse(text).unwrap()).to_vec();
        (Endpoints::new(addresses, Arc::new(clock), Arc::new(MockTelemetry::new())), seconds)
    }

    #[test]
    fn one_that_is_behind_for_a_minute_is_told_of_once() {
        let (endpoints, seconds) = endpoints();
        for (second, told) in [(0, false), (59, false), (60, true), (61, false), (600, false)] {
            seconds.store(second, Ordering::Relaxed);
            assert_eq!(endpoints.compared(1, OLD, NEW).is_some(), told, "after {second} s");
            assert_eq!(endpoints.compared(0, NEW, NEW), None);
        }
        let shown = endpoints.view()[1].last_error.clone().expect("it is shown");
        assert_eq!(shown.code(), Code::VersionNotYet);
        assert!(shown.cause().contains("https://b:8200"), "{shown}");
        assert_eq!(endpoints.view()[0].last_error, None);
    }

    #[test]
    fn one_that_caught_up_is_not_stale() {
        let (endpoints, seconds) = endpoints();
        assert_eq!(endpoints.compared(1, OLD, NEW), None);
        assert_eq!(endpoints.compared(1, NEW, NEW), None);
        seconds.store(60, Ordering::Relaxed);
        assert_eq!(endpoints.compared(1, OLD, NEW), None, "it is behind anew");
        seconds.store(120, Ordering::Relaxed);
        assert!(endpoints.compared(1, OLD, NEW).is_some());
        assert_eq!(endpoints.compared(1, NEW, NEW), None);
        assert_eq!(endpoints.view()[1].last_error, None);
    }
}
