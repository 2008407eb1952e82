//! One line a cause, not one a call.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::domain::time::Monotonic;

/// How long a cause stays quiet after it was told.
const QUIET: Duration = Duration::from_mins(1);

/// Remembers which causes were told when. `C` is a closed vocabulary, so this stays small.
#[derive(Debug)]
pub(super) struct Repeats<C>(Mutex<HashMap<C, (Monotonic, u64)>>);

impl<C: Eq + Hash> Repeats<C> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// Whether `cause` is to be told at `now`; if so, how often it was kept quiet before.
    pub(super) fn tell(&self, cause: C, now: Monotonic) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match told.get_mut(&cause) {
            Some((at, quiet)) if now.since(*at) < QUIET => {
                *quiet = quiet.saturating_add(1);
                None
            }
            _ => Some(told.insert(cause, (now, 0)).map_or(0, |(_, quiet)| quiet)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once_a_minute_with_the_number_kept_quiet() {
        let repeats = Repeats::new();
        let at = |seconds| Monotonic::at(Duration::from_secs(seconds));
        assert_eq!(repeats.tell("a", at(0)), Some(0));
        assert_eq!(repeats.tell("a", at(1)), None);
        assert_eq!(repeats.tell("b", at(1)), Some(0));
        assert_eq!(repeats.tell("a", at(59)), None);
        assert_eq!(repeats.tell("a", at(60)), Some(2));
    }
}
