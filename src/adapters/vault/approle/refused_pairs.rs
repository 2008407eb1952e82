//! Pairs of role ID and secret ID that were refused. Each is left alone for a while, for refusals
//! lock a role: for all nodes that share it, and for good credentials too.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::secret_id::Fingerprint;
use crate::{
    domain::{
        error::{Code, KmsError},
        time::Monotonic,
    },
    ports::clock::Clock,
};

/// How long a pair that was refused is not tried again. A server locks a role after five refusals
/// between which there were never 15 minutes without one. An hour leaves such a gap among the tries
/// of up to four nodes that share a role, whenever each of them began.
const REFUSED_FOR: Duration = Duration::from_hours(1);

/// How many are remembered.
const PAIRS_MAX: usize = 16;

/// The pairs that were refused at one auth mount.
#[derive(Debug)]
pub(super) struct RefusedPairs {
    mount: String,
    clock: Arc<dyn Clock>,
    pairs: Mutex<VecDeque<(Fingerprint, Monotonic)>>,
}

impl RefusedPairs {
    pub(super) fn new(mount: String, clock: Arc<dyn Clock>) -> Self {
        Self { mount, clock, pairs: Mutex::default() }
    }

    /// Why `pair` is not tried now, if it was refused a while ago.
    pub(super) fn before(&self, pair: Fingerprint) -> Option<KmsError> {
        let now = self.clock.now();
        let mut pairs = self.pairs();
        pairs.retain(|(_, at)| now.since(*at) < REFUSED_FOR);
        let (_, at) = *pairs.iter().find(|(refused, _)| *refused == pair)?;
        drop(pairs);
        let minutes = REFUSED_FOR.saturating_sub(now.since(at)).as_secs() / 60 + 1;
        Some(KmsError::new(
            Code::LoginRefused,
            format!(
                "auth/{} has refused this pair of role ID and secret ID; it is tried again in about {minutes} min",
                self.mount
            ),
            "write a new secret ID to the file of --approle-secret-id-path; that is tried at once",
        ))
    }

    /// Takes note that `pair` was refused.
    pub(super) fn note(&self, pair: Fingerprint) {
        let now = self.clock.now();
        let mut pairs = self.pairs();
        if pairs.len() == PAIRS_MAX {
            pairs.pop_front();
        }
        pairs.push_back((pair, now));
    }

    fn pairs(&self) -> MutexGuard<'_, VecDeque<(Fingerprint, Monotonic)>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::domain::time::UnixTime;

    #[derive(Debug, Default)]
    struct Set(AtomicU64);

    #[async_trait]
    impl Clock for Set {
        fn now(&self) -> Monotonic {
            Monotonic::at(Duration::from_secs(self.0.load(Ordering::Relaxed)))
        }
        fn wall(&self) -> UnixTime {
            UnixTime::default()
        }
        fn jitter(&self) -> f64 {
            0.0
        }
        async fn sleep(&self, _: Duration) {}
    }

    fn code(error: Option<KmsError>) -> Option<Code> {
        error.map(|error| error.code())
    }

    #[test]
    fn what_was_refused_rests_for_an_hour() {
        let clock = Arc::new(Set::default());
        let pairs = RefusedPairs::new("approle".into(), Arc::<Set>::clone(&clock));
        pairs.note([1; 32]);
        clock.0.store(3_599, Ordering::Relaxed);
        assert_eq!(code(pairs.before([1; 32])), Some(Code::LoginRefused));
        assert_eq!(code(pairs.before([2; 32])), None);
        clock.0.store(3_600, Ordering::Relaxed);
        assert_eq!(code(pairs.before([1; 32])), None);
    }
}
