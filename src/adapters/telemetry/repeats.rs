//! Limits log lines to one a minute for each cause, so that failing calls do not fill the log.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::domain::time::Monotonic;

/// How long a cause is not logged again.
const INTERVAL: Duration = Duration::from_mins(1);

/// Remembers when each cause was last logged. `C` has a fixed set of values, so the map is bounded.
#[derive(Debug)]
pub(super) struct Repeats<C>(Mutex<HashMap<C, (Monotonic, u64)>>);

impl<C: Eq + Hash> Repeats<C> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// Returns `None` when `cause` was logged less than a minute before `now`. Otherwise the caller
    /// must log it, and the number says how often it was suppressed since it was last logged.
    pub(super) fn check(&self, cause: C, now: Monotonic) -> Option<u64> {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match logged.get_mut(&cause) {
            Some((at, suppressed)) if now.since(*at) < INTERVAL => {
                *suppressed = suppressed.saturating_add(1);
                None
            }
            _ => Some(logged.insert(cause, (now, 0)).map_or(0, |(_, suppressed)| suppressed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_a_cause_once_a_minute_with_the_number_suppressed() {
        let repeats = Repeats::new();
        let at = |seconds| Monotonic::at(Duration::from_secs(seconds));
        assert_eq!(repeats.check("a", at(0)), Some(0));
        assert_eq!(repeats.check("a", at(1)), None);
        assert_eq!(repeats.check("b", at(1)), Some(0));
        assert_eq!(repeats.check("a", at(59)), None);
        assert_eq!(repeats.check("a", at(60)), Some(2));
    }
}
