//! One look at the keeper for everybody who asks at the same time, and not more often than once
//! a second: a key id is request content, and whoever writes to etcd can make up any number.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};

use super::time::Monotonic;

/// The least time from the start of one look to the start of the next.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// A look that all who wait for it drive. When all have left it is dropped, and with it whatever it
/// holds at the keeper.
type Flight = Shared<BoxFuture<'static, ()>>;

/// The last look that was started.
struct Last {
    started: Monotonic,
    flight: WeakShared<BoxFuture<'static, ()>>,
    ended: Arc<AtomicBool>,
}

/// How a caller goes on.
pub(super) enum Look {
    /// The look under way, and when it was started.
    UnderWay(Monotonic, Flight),
    /// The last look ended, and is too recent to look again.
    Ended,
    /// The last look was left by all who waited for it; the next one may start after this time.
    Abandoned(Duration),
}

/// Coalesces and limits looks at the keeper.
#[derive(Default)]
pub(super) struct Refresh(Mutex<Option<Last>>);

impl Refresh {
    /// The look under way at `now`, or a new one made by `start` unless the last one was started
    /// less than [`INTERVAL`] ago.
    pub(super) fn join(
        &self,
        now: Monotonic,
        start: impl FnOnce() -> BoxFuture<'static, ()>,
    ) -> Look {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*slot {
            let ended = last.ended.load(Ordering::SeqCst);
            if !ended && let Some(flight) = last.flight.upgrade() {
                return Look::UnderWay(last.started, flight);
            }
            let age = now.since(last.started);
            if age < INTERVAL {
                return if ended {
                    Look::Ended
                } else {
                    Look::Abandoned(INTERVAL.saturating_sub(age))
                };
            }
        }
        let (look, ended) = (start(), Arc::new(AtomicBool::new(false)));
        let end = Arc::clone(&ended);
        let flight = async move {
            look.await;
            end.store(true, Ordering::SeqCst);
        };
        let flight = flight.boxed().shared();
        *slot = flight.downgrade().map(|flight| Last { started: now, flight, ended });
        Look::UnderWay(now, flight)
    }
}

impl fmt::Debug for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresh").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::at(Duration::from_millis(millis))
    }

    #[test]
    fn a_flood_costs_one_look_a_second() {
        let (refresh, looks) = (Refresh::default(), Arc::new(AtomicU32::new(0)));
        for millis in 0..10_000_u64 {
            let looks = Arc::clone(&looks);
            let look = refresh.join(at(millis), || {
                async move {
                    looks.fetch_add(1, Ordering::Relaxed);
                }
                .boxed()
            });
            if let Look::UnderWay(_, flight) = look {
                flight.now_or_never();
            }
        }
        assert_eq!(looks.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn a_look_under_way_is_shared_however_long_it_takes() {
        let refresh = Refresh::default();
        let _leader = refresh.join(at(0), || std::future::pending().boxed());
        let joined = refresh.join(at(60_000), || unreachable!("it must join the look under way"));
        assert!(matches!(joined, Look::UnderWay(started, _) if started == at(0)));
    }

    #[test]
    fn a_look_that_all_have_left_is_dropped_and_replaced() {
        let (refresh, held) = (Refresh::default(), Arc::new(()));
        let start = || {
            let held = Arc::clone(&held);
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
            .boxed()
        };
        drop(refresh.join(at(0), start));
        assert_eq!(Arc::strong_count(&held), 1, "nothing keeps what the look held");
        let wait = Duration::from_millis(600);
        assert!(matches!(refresh.join(at(400), start), Look::Abandoned(left) if left == wait));
        assert!(matches!(refresh.join(at(1_000), start), Look::UnderWay(..)));
    }
}
