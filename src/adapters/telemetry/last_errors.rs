//! The last errors, for those who look on: a line for each kind, with when and how often.

use std::sync::{Mutex, PoisonError};

use crate::domain::{error::KmsError, time::UnixTime};

/// Kinds kept; the one that was not seen for longest makes room.
const KINDS_MAX: usize = 16;

/// An error that was met.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What failed, in the words of the log.
    pub what: &'static str,
    /// The error as it was last.
    pub error: KmsError,
    /// When it was met first and last.
    pub first: UnixTime,
    /// See `first`.
    pub last: UnixTime,
    /// How often.
    pub times: u64,
}

/// Remembers the last errors of each kind.
#[derive(Debug, Default)]
pub struct LastErrors(Mutex<Vec<Seen>>);

impl LastErrors {
    /// Takes note that `what` failed with `error` at `now`.
    pub(super) fn note(&self, what: &'static str, error: &KmsError, now: UnixTime) {
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

    /// The errors, the latest first.
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
    fn a_kind_is_one_line_and_the_latest_stands_first() {
        let errors = LastErrors::default();
        let error = KmsError::new(Code::KeeperSealed, "sealed", "unseal it");
        for (second, what) in [(1, "a"), (2, "b"), (3, "a")] {
            errors.note(what, &error, UnixTime::from_secs(second));
        }
        let seen = errors.latest_first();
        let line = |s: &Seen| (s.what, s.first.secs(), s.last.secs(), s.times);
        let lines: Vec<_> = seen.iter().map(line).collect();
        assert_eq!(lines, [("a", 1, 3, 2), ("b", 2, 2, 1)]);
    }

    #[test]
    fn the_number_of_kinds_is_bounded() {
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
                errors.note(what, &error, UnixTime::default());
            }
        }
        assert_eq!(errors.latest_first().len(), KINDS_MAX);
    }
}
