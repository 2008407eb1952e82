//! When the next login is due, and with which material. Plain data: times, digests and chance go in.
//!
//! Material that the keeper refused is held back for an hour, because refusals lock a role. After
//! any other failure it is tried again within a minute. Changed material is tried at once.

use std::time::Duration;

use super::credentials::CredentialDigest;
use crate::domain::{
    error::{Code, KmsError},
    time::Monotonic,
};

/// How long refused material is not sent again. A server locks a role after five refusals between
/// which there were never 15 minutes without one. An hour leaves such a gap among the tries of up
/// to four nodes that share a role, whenever each of them began.
pub(super) const REFUSED_FOR: Duration = Duration::from_hours(1);

/// The longest wait after any other failure.
pub(super) const FAILED_FOR_MAX: Duration = Duration::from_mins(1);

/// The least time between the end of one login and the start of the next.
pub(super) const LOGIN_INTERVAL: Duration = Duration::from_secs(1);

/// The least age of a token before its rejection leads to a login, once a younger token was
/// rejected. Doubled for each further rejection in a row, up to the last value.
const REJECTED_INTERVAL: Duration = Duration::from_secs(10);
pub(super) const REJECTED_INTERVAL_MAX: Duration = Duration::from_mins(5);

/// How many different materials are remembered.
pub(super) const HOLDS_MAX: usize = 8;

/// What happened to a login or to the token that it gave.
#[derive(Clone, Debug)]
pub(super) enum LoginEvent {
    /// A login with this material gave a token.
    Granted(CredentialDigest),
    /// The keeper looked at this material and refused it.
    Refused(CredentialDigest, KmsError),
    /// The login failed for another reason.
    Failed(CredentialDigest, KmsError),
    /// The keeper rejected the token before its end.
    Rejected,
    /// The token came to its end, or cannot be renewed.
    Ended,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Log in with the material at this place of the list.
    Now(usize),
    /// Wait.
    NotBefore {
        /// Until when, unless the material changes.
        at: Monotonic,
        /// Why; `None` when logins are only spaced.
        why: Option<KmsError>,
    },
}

/// Material that is not sent for a while.
#[derive(Clone, Debug)]
struct Hold {
    digest: CredentialDigest,
    until: Monotonic,
    why: KmsError,
    /// How often it failed in a row, without being refused.
    failures: u32,
}

/// What is known of the logins so far.
#[derive(Clone, Debug, Default)]
pub(super) struct LoginPlan {
    /// The oldest first. Kept beyond its end for the number of failures.
    holds: Vec<Hold>,
    /// When the last login ended.
    ended: Option<Monotonic>,
    /// The material of the token that is held, and when it was given.
    granted: Option<(CredentialDigest, Monotonic)>,
    /// How many tokens in a row were rejected while they were new.
    rejected_in_a_row: u32,
}

impl LoginPlan {
    /// Takes note of what happened at `now`. `chance` in `[0, 1)` spreads out nodes that began
    /// together.
    pub(super) fn learn(&mut self, what: LoginEvent, now: Monotonic, chance: f64) {
        match what {
            LoginEvent::Granted(digest) => {
                self.holds.retain(|hold| hold.digest != digest);
                (self.ended, self.granted) = (Some(now), Some((digest, now)));
            }
            LoginEvent::Refused(digest, error) => {
                self.ended = Some(now);
                let wait = REFUSED_FOR.mul_f64(1.0 + chance / 10.0);
                self.hold(digest, now.after(wait), until_it_changes(&error), 0);
            }
            LoginEvent::Failed(digest, error) => {
                self.ended = Some(now);
                let failures = self.failures(digest);
                let wait = wait_after(error.code(), failures).mul_f64(0.9 + chance / 5.0);
                let until = now.after(wait.min(FAILED_FOR_MAX));
                self.hold(digest, until, error, failures.saturating_add(1));
            }
            LoginEvent::Rejected => self.rejected(now),
            LoginEvent::Ended => self.rejected_in_a_row = 0,
        }
    }

    /// What to do at `now` with the materials of these digests, the preferred one first.
    pub(super) fn next(&self, digests: &[CredentialDigest], now: Monotonic) -> Next {
        let spaced = self.ended.map(|ended| ended.after(LOGIN_INTERVAL)).filter(|at| now < *at);
        let holds: Vec<_> = digests.iter().map(|digest| self.held(*digest, now)).collect();
        if let Some(free) = holds.iter().position(Option::is_none) {
            return spaced.map_or(Next::Now(free), |at| Next::NotBefore { at, why: None });
        }
        let until = holds.iter().flatten().map(|hold| hold.until).min();
        let why = holds.first().copied().flatten().map(|hold| hold.why.clone());
        // Without any material there is nothing to wait for but a change.
        Next::NotBefore { at: until.max(spaced).unwrap_or(now.after(FAILED_FOR_MAX)), why }
    }

    /// A token that was rejected when it was new must not lead to a storm of logins.
    fn rejected(&mut self, now: Monotonic) {
        let Some((digest, granted)) = self.granted.take() else { return };
        let spacing = match self.rejected_in_a_row.checked_sub(1) {
            // Once, a node of the cluster may not have known the token yet.
            None => LOGIN_INTERVAL,
            Some(times) => doubled(REJECTED_INTERVAL, times, REJECTED_INTERVAL_MAX),
        };
        let is_new = now.since(granted) < spacing.max(REJECTED_INTERVAL);
        self.rejected_in_a_row = if is_new { self.rejected_in_a_row.saturating_add(1) } else { 0 };
        let until = granted.after(spacing);
        if now < until {
            let why = rejected_token(until.since(now));
            self.hold(digest, until, why, 0);
        }
    }

    fn hold(&mut self, digest: CredentialDigest, until: Monotonic, why: KmsError, failures: u32) {
        self.holds.retain(|hold| hold.digest != digest);
        if self.holds.len() >= HOLDS_MAX {
            self.holds.remove(0);
        }
        self.holds.push(Hold { digest, until, why, failures });
    }

    fn held(&self, digest: CredentialDigest, now: Monotonic) -> Option<&Hold> {
        self.holds.iter().find(|hold| hold.digest == digest && now < hold.until)
    }

    fn failures(&self, digest: CredentialDigest) -> u32 {
        self.holds.iter().find(|hold| hold.digest == digest).map_or(0, |hold| hold.failures)
    }
}

/// How long to wait after a failure with `code`, the first one or one after `failures` others.
fn wait_after(code: Code, failures: u32) -> Duration {
    let (first, most) = match code {
        // Its file is watched.
        Code::CredentialUnreadable => (60, 60),
        // An operator has to change the role or the mount.
        Code::LoginRefused | Code::PermissionDenied | Code::KeyMissing => (5, 60),
        code if code.is_outage() => (1, 5),
        // Neither an outage nor a refusal: a page of a proxy.
        _ => (1, 30),
    };
    doubled(Duration::from_secs(first), failures, Duration::from_secs(most))
}

/// `first`, doubled so many times, and at most `most`.
pub(super) fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times.min(16))).min(most)
}

fn until_it_changes(error: &KmsError) -> KmsError {
    let hour = "the same credential is tried again after an hour, a new one at once";
    KmsError::new(error.code(), format!("{}; {hour}", error.cause()), error.remedy().to_owned())
}

fn rejected_token(wait: Duration) -> KmsError {
    KmsError::new(
        Code::KeeperFailed,
        format!(
            "the keeper refused a token that it gave moments ago; a login follows in {} s",
            wait.as_secs()
        ),
        "if this lasts, check the token_bound_cidrs of the role",
    )
}

#[cfg(test)]
#[path = "login_plan_tests.rs"]
mod tests;
