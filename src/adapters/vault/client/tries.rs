//! The tries of one call so far, and the next step after a failure.

use std::time::Duration;

use super::{
    Repeat,
    retry::{REQUESTS_MAX, Where, reason, rule},
};
use crate::adapters::vault::{servers::Failure, vocabulary::RetryReason};

/// The next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) reason: RetryReason,
    pub(super) place: Where,
    wait: Duration,
    /// Whether the server asked for this wait.
    asked: bool,
    /// Whether this is the last try for this reason.
    pub(super) is_last: bool,
}

impl Step {
    /// Returns the wait before this try, varied by `chance` in `[0, 1)`. The wait is never shorter
    /// than the server asked for.
    pub(super) fn wait(&self, chance: f64) -> Duration {
        let least = if self.asked { 1.0 } else { 0.75 };
        Duration::try_from_secs_f64(self.wait.as_secs_f64() * (least + chance / 2.0))
            .unwrap_or(Duration::MAX)
    }
}

/// The tries of one call.
#[derive(Debug, Default)]
pub(super) struct Tries {
    requests: u32,
    by_reason: Vec<(RetryReason, usize)>,
    avoided: Vec<usize>,
    /// The endpoint that refused the token.
    token_refused_at: Option<usize>,
}

impl Tries {
    /// Returns the next step after `failure` at `endpoint`, or `None` if the failure is final.
    /// `named` is the endpoint that a redirect points to.
    pub(super) fn next(
        &mut self,
        failure: &Failure,
        endpoint: usize,
        named: Option<usize>,
        repeat: Repeat,
    ) -> Option<Step> {
        self.requests += 1;
        if self.requests >= REQUESTS_MAX {
            return None;
        }
        let reason = match reason(failure)? {
            RetryReason::TokenUnknown => {
                self.token_refused_at = Some(endpoint);
                RetryReason::TokenUnknown
            }
            // The redirect points to the endpoint that refused the token.
            RetryReason::Redirected if named.is_some() && named == self.token_refused_at => {
                return None;
            }
            // A redirect is followed once, and only to a configured endpoint. Otherwise the node,
            // or the leader that it names, is treated as unavailable.
            RetryReason::Redirected
                if named.is_none() || self.times(RetryReason::Redirected) > 0 =>
            {
                RetryReason::Unavailable
            }
            reason => reason,
        };
        let rule = rule(reason, repeat)?;
        let times = self.times(reason);
        let wait = *rule.waits.get(times)?;
        // The wait that a node asks for matters only if the same node is asked again.
        let asked = failure.retry_after().filter(|_| rule.place == Where::Same);
        self.by_reason.retain(|(known, _)| *known != reason);
        self.by_reason.push((reason, times + 1));
        Some(Step {
            reason,
            place: rule.place,
            wait: asked.unwrap_or(wait),
            asked: asked.is_some(),
            is_last: times + 1 >= rule.waits.len(),
        })
    }

    fn times(&self, reason: RetryReason) -> usize {
        self.by_reason.iter().find(|(known, _)| *known == reason).map_or(0, |(_, times)| *times)
    }

    /// Records that `endpoint` failed this call.
    pub(super) fn avoid(&mut self, endpoint: usize) {
        self.avoided.push(endpoint);
    }

    /// Returns the endpoints that failed this call.
    pub(super) fn avoided(&self) -> &[usize] {
        &self.avoided
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::vault::{address::VaultAddress, refusal::Refusal};

    fn redirection() -> Failure {
        let address = VaultAddress::parse("https://vault:8200").unwrap();
        Failure::redirected(&address, 307, Some("https://elsewhere".to_owned()))
    }

    /// Regression: the longest possible wait in a header once aborted the process.
    #[test]
    fn the_wait_is_finite_whatever_the_server_asks_for() {
        let body = br#"{"errors":["rate limit quota exceeded"]}"#;
        let refusal = Refusal::read(429, Some(Duration::MAX), body).unwrap();
        let step = Tries::default().next(&Failure::Refused(refusal), 0, None, Repeat::Freely);
        for chance in [0.0, 0.5, 0.999_999] {
            assert!(step.unwrap().wait(chance) <= Duration::MAX);
        }
    }

    #[test]
    fn follows_one_redirect_and_treats_the_next_as_unavailable() {
        let mut tries = Tries::default();
        let steps: Vec<_> = std::iter::from_fn(|| {
            tries.next(&redirection(), 0, Some(1), Repeat::Freely).map(|step| step.reason)
        })
        .collect();
        let away = RetryReason::Unavailable;
        assert_eq!(steps, [RetryReason::Redirected, away, away, away]);
    }

    #[test]
    fn does_not_follow_a_redirect_to_the_endpoint_that_refused_the_token() {
        let refusal = br#"{"errors":["permission denied"]}"#;
        let dead_token = Failure::Refused(Refusal::read(403, None, refusal).unwrap());
        let mut tries = Tries::default();
        let shown_to_another = tries.next(&dead_token, 0, None, Repeat::Freely).unwrap();
        assert_eq!(shown_to_another.reason, RetryReason::TokenUnknown);
        assert_eq!(tries.next(&redirection(), 1, Some(0), Repeat::Freely), None);
        let elsewhere = tries.next(&redirection(), 1, Some(2), Repeat::Freely).unwrap();
        assert_eq!(elsewhere.reason, RetryReason::Redirected);
    }

    #[test]
    fn does_not_follow_a_redirect_to_an_address_that_is_not_configured() {
        let step = Tries::default().next(&redirection(), 0, None, Repeat::Freely).unwrap();
        assert_eq!((step.reason, step.place), (RetryReason::Unavailable, Where::PreferOther));
    }

    #[test]
    fn one_call_costs_a_bounded_number_of_requests() {
        let mut tries = Tries::default();
        let lost = || {
            let error = crate::domain::error::KmsError::new(
                crate::domain::error::Code::KeeperUnreachable,
                "scripted",
                "none",
            );
            [Failure::Lost(error.clone()), Failure::Unsent(error), redirection()]
        };
        let mut requests = 1;
        for failure in lost().iter().cycle() {
            if tries.next(failure, 1, Some(0), Repeat::Freely).is_none() {
                break;
            }
            requests += 1;
        }
        assert!(requests <= REQUESTS_MAX, "{requests}");
    }
}
