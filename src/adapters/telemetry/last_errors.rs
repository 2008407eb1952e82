//! Keeps the last errors for the status page: one entry for each kind of error, with times and
//! count.

use std::sync::{Mutex, PoisonError};

use crate::domain::{error::KmsError, time::UnixTime};

/// The most kinds that are kept. A new kind replaces the kind that was not seen for longest.
const KINDS_MAX: usize = 16;

/// An error that happened at least once.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The operation that failed, in the words of the log.
    pub what: &'static str,
    /// The latest error of this kind.
    pub error: KmsError,
    /// When the error first happened.
    pub first: UnixTime,
    /// When the error last happened.
    pub last: UnixTime,
    /// How often the error happened.
    pub times: u64,
}

/// Remembers the last errors of each kind.
#[derive(Debug, Default)]
pub struct LastErrors(Mutex<Vec<Seen>>);

impl LastErrors {
    /// Records that `what` failed with `error` at `now`.
    pub(super) fn record(&self, what: &'static str, error: &KmsError, now: UnixTime) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.iter().position(|s| s.what == what && s.error.code() == error.code());
        let (first, times) = match known.map(|at| seen.remove(at)) {
            Some(known) => (known.first, known.times.saturating_add(1)),
            None => (now, 1),
        };
        if seen.len() >= KINDS_MAX {
            seen.remove(0);
        }
        seen.push(Seen { what, error: error.clone(), first, last: now, times });
    }

    /// Returns the errors, the latest first.
    #[must_use]
    pub fn latest_first(&self) -> Vec<Seen> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.reverse();
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::error::Code;

    const WHATS: [&str; 3] = ["a", "b", "c"];

    #[test]
    fn keeps_one_entry_for_each_kind_and_returns_the_latest_first() {
        let errors = LastErrors::default();
        let error = KmsError::new(Code::KeeperSealed, "sealed", "unseal it");
        for (second, what) in [(1, "a"), (2, "b"), (3, "a")] {
            errors.record(what, &error, UnixTime::from_secs(second));
        }
        let seen = errors.latest_first();
        let line = |s: &Seen| (s.what, s.first.secs(), s.last.secs(), s.times);
        let lines: Vec<_> = seen.iter().map(line).collect();
        assert_eq!(lines, [("a", 1, 3, 2), ("b", 2, 2, 1)]);
    }

    #[test]
    fn bounds_the_number_of_kinds() {
        let errors = LastErrors::default();
        for code in [
            Code::Internal,
            Code::KeyMissing,
            Code::KeyReplaced,
            Code::KeyUnusable,
            Code::Overloaded,
            Code::Starting,
        ] {
            for what in WHATS {
                let error = KmsError::new(code, "scripted", "none");
                errors.record(what, &error, UnixTime::default());
            }
        }
        assert_eq!(errors.latest_first().len(), KINDS_MAX);
    }
}
