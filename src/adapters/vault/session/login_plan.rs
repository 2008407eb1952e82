//! Decides when the next login is due, and with which material. Plain data: times, digests and
//! random numbers go in.
//! Material that the keeper refused is not sent for an hour, because refusals lock a role. After
//! any other failure the material is tried again within a minute. Changed material is tried at
//! once.

use std::time::Duration;

use crate::{
    adapters::vault::login::port::{CredentialDigest, REFUSED_FOR},
    domain::{
        error::{Code, KmsError},
        time::Monotonic,
    },
};

/// The longest wait after any other failure, and between logins whose tokens are rejected.
pub(super) const FAILED_FOR_MAX: Duration = Duration::from_mins(1);

/// The shortest time between the end of one login and the start of the next.
pub(super) const LOGIN_INTERVAL: Duration = Duration::from_secs(1);

/// The shortest age of a token before its rejection leads to a login, if the token before it was
/// rejected while it was new. Doubles for each further rejection in a row, up to the last value.
const REJECTED_INTERVAL: Duration = Duration::from_secs(10);
pub(super) const REJECTED_INTERVAL_MAX: Duration = FAILED_FOR_MAX;

/// The largest number of different materials that are remembered.
pub(super) const HOLDS_MAX: usize = 8;

/// The result of a login, or the end of the token that it gave.
#[derive(Clone, Debug)]
pub(super) enum LoginEvent {
    /// A login with this material gave a token.
    Granted(CredentialDigest),
    /// The keeper checked this material and refused it.
    Refused(CredentialDigest, KmsError),
    /// The login failed for another reason.
    Failed(CredentialDigest, KmsError),
    /// The keeper rejected the token before it expired.
    Rejected,
    /// The token expired, or cannot be renewed.
    Ended,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Log in with the material at this index of the list.
    Now(usize),
    /// Wait.
    NotBefore {
        /// When the wait ends. A change of the material ends it earlier.
        at: Monotonic,
        /// Why no login is allowed now. `None` if the last login ended less than [`LOGIN_INTERVAL`]
        /// ago.
        why: Option<KmsError>,
    },
}

/// After so many failures in a row (about 8 minutes), an outage no longer keeps other material from
/// being sent.
const OUTAGE_FAILURES_MAX: u32 = 100;

/// Material that is not sent until a given time.
#[derive(Clone, Debug)]
struct Hold {
    digest: CredentialDigest,
    until: Monotonic,
    why: KmsError,
    /// The number of failures in a row that were not refusals.
    failures: u32,
}

/// Everything known about the logins so far.
#[derive(Clone, Debug, Default)]
pub(super) struct LoginPlan {
    /// The oldest first. An entry stays after its end, because it counts the failures.
    holds: Vec<Hold>,
    /// When the last login ended.
    ended: Option<Monotonic>,
    /// The material of the current token, and when that token was granted.
    granted: Option<(CredentialDigest, Monotonic)>,
    /// The number of tokens in a row that were rejected while they were new.
    rejected_in_a_row: u32,
}

impl LoginPlan {
    /// Records what happened at `now`. `chance` in `[0, 1)` varies the waits, so that nodes that
    /// started together do not log in together.
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

    /// Returns the next step at `now` for the materials with these digests, the preferred one
    /// first. Another one follows after any failure except an outage of the keeper, in which the
    /// other one would usually fail too, or be refused and count towards the role's lock. A proxy's
    /// answer is not such an outage. After [`OUTAGE_FAILURES_MAX`] failures another one follows all
    /// the same.
    pub(super) fn next(&self, digests: &[CredentialDigest], now: Monotonic) -> Next {
        let spaced = self.ended.map(|ended| ended.after(LOGIN_INTERVAL)).filter(|at| now < *at);
        let mut holds: Vec<_> = digests.iter().map(|digest| self.held(*digest, now)).collect();
        let is_away =
            |hold: &Hold| is_of_the_keeper(&hold.why) && hold.failures < OUTAGE_FAILURES_MAX;
        if let Some(away) = holds.iter().position(|hold| hold.is_some_and(is_away)) {
            holds.truncate(away + 1);
        }
        if let Some(free) = holds.iter().position(Option::is_none) {
            return spaced.map_or(Next::Now(free), |at| Next::NotBefore { at, why: None });
        }
        let until = holds.iter().flatten().map(|hold| hold.until).min();
        let why = holds.first().copied().flatten().map(|hold| hold.why.clone());
        // The list is empty, so only a change of the material allows a login.
        Next::NotBefore { at: until.max(spaced).unwrap_or(now.after(FAILED_FOR_MAX)), why }
    }

    /// Records that the keeper rejected the token. Spaces the logins out if the token was new,
    /// because each new token may be rejected too.
    fn rejected(&mut self, now: Monotonic) {
        let Some((digest, granted)) = self.granted.take() else { return };
        let spacing = match self.rejected_in_a_row.checked_sub(1) {
            // The first rejection: a lagging node may not know the token yet, so no extra wait.
            None => LOGIN_INTERVAL,
            Some(times) => doubled(REJECTED_INTERVAL, times, REJECTED_INTERVAL_MAX),
        };
        let is_new = now.since(granted) < spacing.max(REJECTED_INTERVAL);
        self.rejected_in_a_row = if is_new { self.rejected_in_a_row.saturating_add(1) } else { 0 };
        let until = granted.after(spacing);
        // The material of the token may have been refused since, which holds for longer.
        let is_held = self.held(digest, now).is_some_and(|hold| until <= hold.until);
        if now < until && !is_held {
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

/// Returns the wait after a failure with `code` that follows `failures` other failures.
fn wait_after(code: Code, failures: u32) -> Duration {
    let (first, most) = match code {
        // The file is watched, so a change leads to a login at once.
        Code::CredentialUnreadable => (60, 60),
        // An operator has to change the role or the mount.
        Code::LoginRefused | Code::PermissionDenied | Code::KeyMissing => (5, 60),
        code if code.is_outage() => (1, 5),
        // The answer is neither an outage nor a refusal, for example the page of a proxy.
        _ => (1, 30),
    };
    doubled(Duration::from_secs(first), failures, Duration::from_secs(most))
}

/// Returns whether `error` is an outage of the keeper, and not of a proxy for some paths.
fn is_of_the_keeper(error: &KmsError) -> bool {
    error.code().is_outage() && error.code() != Code::Intermediary
}

/// Returns `first`, doubled `times` times, but at most `most`.
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
