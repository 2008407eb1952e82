//! Shares one refresh of the key's metadata between concurrent calls, and limits refreshes to one a
//! second. A call asks for a refresh because of its key id, and an attacker with write access to
//! etcd can invent any number of key ids.

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

/// The minimum time from the start of one refresh to the start of the next.
pub(super) const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// A refresh that every waiting call polls. It is dropped when the last of them is dropped, which
/// cancels its request to the keeper.
type SharedRefresh = Shared<BoxFuture<'static, ()>>;

/// The last refresh that was started.
struct Last {
    started: Monotonic,
    refresh: WeakShared<BoxFuture<'static, ()>>,
    ended: Arc<AtomicBool>,
}

/// The refresh that a call gets.
pub(super) enum Refresh {
    /// A refresh runs: the time of its start, and the future to wait for.
    Running(Monotonic, SharedRefresh),
    /// The last refresh has ended, and it is too early for another one.
    Ended,
    /// The last refresh was cancelled before its end. The next one may start after this time.
    Cancelled(Duration),
}

/// Shares and limits refreshes.
#[derive(Default)]
pub(super) struct Refresher(Mutex<Option<Last>>);

impl Refresher {
    /// Returns the refresh that runs at `now`. When none runs, starts one with `start`, unless the
    /// last one started less than [`MIN_INTERVAL`] ago.
    pub(super) fn join(
        &self,
        now: Monotonic,
        start: impl FnOnce() -> BoxFuture<'static, ()>,
    ) -> Refresh {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*slot {
            let ended = last.ended.load(Ordering::SeqCst);
            if !ended && let Some(refresh) = last.refresh.upgrade() {
                return Refresh::Running(last.started, refresh);
            }
            let age = now.since(last.started);
            if age < MIN_INTERVAL {
                return if ended {
                    Refresh::Ended
                } else {
                    Refresh::Cancelled(MIN_INTERVAL.saturating_sub(age))
                };
            }
        }
        let (read, ended) = (start(), Arc::new(AtomicBool::new(false)));
        let end = Arc::clone(&ended);
        let refresh = async move {
            read.await;
            end.store(true, Ordering::SeqCst);
        };
        let refresh = refresh.boxed().shared();
        *slot = refresh.downgrade().map(|refresh| Last { started: now, refresh, ended });
        Refresh::Running(now, refresh)
    }
}

impl fmt::Debug for Refresher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresher").finish_non_exhaustive()
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
    fn starts_one_refresh_a_second_under_many_calls() {
        let (refresher, reads) = (Refresher::default(), Arc::new(AtomicU32::new(0)));
        for millis in 0..10_000_u64 {
            let reads = Arc::clone(&reads);
            let refresh = refresher.join(at(millis), || {
                async move {
                    reads.fetch_add(1, Ordering::Relaxed);
                }
                .boxed()
            });
            if let Refresh::Running(_, refresh) = refresh {
                refresh.now_or_never();
            }
        }
        assert_eq!(reads.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn shares_a_running_refresh_for_as_long_as_it_runs() {
        let refresher = Refresher::default();
        let _first = refresher.join(at(0), || std::future::pending().boxed());
        let joined =
            refresher.join(at(60_000), || unreachable!("it must join the running refresh"));
        assert!(matches!(joined, Refresh::Running(started, _) if started == at(0)));
    }

    #[test]
    fn drops_and_replaces_a_refresh_that_no_call_waits_for() {
        let (refresher, held) = (Refresher::default(), Arc::new(()));
        let start = || {
            let held = Arc::clone(&held);
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
            .boxed()
        };
        drop(refresher.join(at(0), start));
        assert_eq!(Arc::strong_count(&held), 1, "the dropped refresh releases what it held");
        let wait = Duration::from_millis(600);
        assert!(matches!(refresher.join(at(400), start), Refresh::Cancelled(left) if left == wait));
        assert!(matches!(refresher.join(at(1_000), start), Refresh::Running(..)));
    }
}
