//! One look at the keeper for everybody who asks at the same time, and not more often than once
//! a second: a key id is request content, and whoever writes to etcd can make up any number.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};

use super::time::Monotonic;

/// The least time from the start of one look to the start of the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// A look that was started this long ago has been left by all who waited for it.
const ABANDONED: Duration = Duration::from_secs(10);

type Flight = Shared<BoxFuture<'static, ()>>;

/// Coalesces and limits looks at the keeper.
#[derive(Default)]
pub(super) struct Refresh(Mutex<Option<(Monotonic, Flight)>>);

impl Refresh {
    /// The look under way at `now`, a new one made by `start`, or `None` when the last one was
    /// too recent to look again.
    pub(super) fn join(
        &self,
        now: Monotonic,
        start: impl FnOnce() -> BoxFuture<'static, ()>,
    ) -> Option<Flight> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            // A flight runs only while somebody waits for it: one that all have left is not resumed.
            Some((started, flight))
                if flight.peek().is_none() && now.since(*started) < ABANDONED =>
            {
                Some(flight.clone())
            }
            Some((started, _)) if now.since(*started) < INTERVAL => None,
            _ => {
                let flight = start().shared();
                *last = Some((now, flight.clone()));
                Some(flight)
            }
        }
    }
}

impl fmt::Debug for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresh").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    #[test]
    fn a_flood_costs_one_look_a_second() {
        let (refresh, looks) = (Refresh::default(), Arc::new(AtomicU32::new(0)));
        for millis in 0..10_000_u64 {
            let looks = Arc::clone(&looks);
            let flight = refresh.join(Monotonic::at(Duration::from_millis(millis)), || {
                async move {
                    looks.fetch_add(1, Ordering::Relaxed);
                }
                .boxed()
            });
            if let Some(flight) = flight {
                flight.now_or_never();
            }
        }
        assert_eq!(looks.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn a_look_under_way_is_shared_however_long_it_takes() {
        let refresh = Refresh::default();
        let _leader = refresh.join(Monotonic::default(), || std::future::pending().boxed());
        let later = Monotonic::at(Duration::from_secs(3));
        let joined = refresh.join(later, || unreachable!("it must join the look under way"));
        assert!(joined.is_some());
    }
}
