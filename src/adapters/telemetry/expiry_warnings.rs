//! Logs one warning for each thing that expires soon, such as a certificate.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tracing::warn;

use crate::{adapters::rfc3339, domain::time::UnixTime, ports::telemetry::Expiring};

/// The seconds of a day.
const DAY: u64 = 86_400;

/// Each expiry that is known, and whether its warning was logged.
#[derive(Debug, Default)]
pub(super) struct ExpiryWarnings(Mutex<HashMap<Expiring, (UnixTime, bool)>>);

impl ExpiryWarnings {
    /// Records that `what` expires at `at`. `None` removes the expiry, because it is unknown.
    pub(super) fn set(&self, what: Expiring, at: Option<UnixTime>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match at {
            Some(at) if known.get(&what).is_some_and(|(before, _)| *before == at) => (),
            Some(at) => drop(known.insert(what, (at, false))),
            None => drop(known.remove(&what)),
        }
    }

    /// Logs a warning for each thing that has expired or expires soon after `now`
    /// ([`Expiring::soon`]). Each expiry is logged once.
    pub(super) fn warn(&self, now: UnixTime) {
        for (what, at) in self.due(now) {
            let at = rfc3339::seconds(at);
            let Expiring { label, name, remedy, soon, .. } = what;
            let soon = match soon.as_secs() / DAY {
                0 => format!("{} seconds", soon.as_secs()),
                days => format!("{days} days"),
            };
            warn!(what = label, at, remedy, "{name} expires in less than {soon}, or has expired");
        }
    }

    /// Returns the known expiries, the first one first.
    pub(super) fn first_to_last(&self) -> Vec<(Expiring, UnixTime)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = known.iter().map(|(what, (at, _))| (*what, *at)).collect();
        all.sort_by_key(|(what, at)| (at.secs(), what.label));
        all
    }

    fn due(&self, now: UnixTime) -> Vec<(Expiring, UnixTime)> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        for (what, (at, is_logged)) in known.iter_mut() {
            if !*is_logged && at.since(now) < what.soon {
                *is_logged = true;
                due.push((*what, *at));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET_ID: Expiring = Expiring::new("secret-id", "the secret ID", "write a new one");
    const AUTHORITIES: Expiring = Expiring::new("authorities", "a certificate", "renew it");

    fn days(days: i64) -> UnixTime {
        UnixTime::from_secs(days * 86_400)
    }

    #[test]
    fn warns_of_a_short_lived_item_in_its_last_minute() {
        const JWT: Expiring = Expiring::short_lived("jwt", "the JWT", "see its issuer");
        let warnings = ExpiryWarnings::default();
        let end = UnixTime::from_secs(3_600);
        warnings.set(JWT, Some(end));
        assert_eq!(warnings.due(UnixTime::from_secs(3_540)), []);
        assert_eq!(warnings.due(UnixTime::from_secs(3_541)), [(JWT, end)]);
    }

    #[test]
    fn warns_once_when_less_than_a_week_is_left() {
        let warnings = ExpiryWarnings::default();
        let end = days(100);
        warnings.set(SECRET_ID, Some(end));
        warnings.set(AUTHORITIES, Some(days(200)));
        assert_eq!(warnings.due(days(93)), []);
        let later = UnixTime::from_secs(93 * 86_400 + 1);
        assert_eq!(warnings.due(later), [(SECRET_ID, end)]);
        warnings.set(SECRET_ID, Some(end));
        assert_eq!(warnings.due(days(101)), []);
        warnings.set(SECRET_ID, Some(days(102)));
        assert_eq!(warnings.due(days(101)), [(SECRET_ID, days(102))]);
        warnings.set(SECRET_ID, None);
        assert_eq!(warnings.due(days(300)), [(AUTHORITIES, days(200))]);
    }
}
