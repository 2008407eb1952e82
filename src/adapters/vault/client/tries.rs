//! What was tried for one call, and what follows from it.

use std::time::Duration;

use super::{
    Repeat,
    failure::Failure,
    retry::{REQUESTS_MAX, Where, reason, rule},
};
use crate::adapters::vault::vocabulary::RetryReason;

/// The next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) reason: RetryReason,
    pub(super) place: Where,
    wait: Duration,
    /// Whether the server asked for that wait.
    asked: bool,
    /// Whether it is the last one for this reason.
    pub(super) is_last: bool,
}

impl Step {
    /// How long to wait before it, spread by `chance` in `[0, 1)`: never less than a server asked
    /// for.
    pub(super) fn wait(&self, chance: f64) -> Duration {
        let least = if self.asked { 1.0 } else { 0.75 };
        Duration::try_from_secs_f64(self.wait.as_secs_f64() * (least + chance / 2.0))
            .unwrap_or(Duration::MAX)
    }
}

/// What was tried for one call.
#[derive(Debug, Default)]
pub(super) struct Tries {
    requests: u32,
    by_reason: Vec<(RetryReason, usize)>,
    avoided: Vec<usize>,
    /// The endpoint that refused the token.
    token_refused_at: Option<usize>,
}

impl Tries {
    /// What to do after `failure` at `endpoint`, where `named` is the endpoint that it points to;
    /// `None` when it is final.
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
            // Back to where the token was refused.
            RetryReason::Redirected if named.is_some() && named == self.token_refused_at => {
                return None;
            }
            // Followed once, and to an endpoint of ours alone. Otherwise this node, or the one that
            // it still takes for the leader, is of no use for a moment.
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
        // What one node asks for is nothing to the others.
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

    /// Endpoint `endpoint` failed this call.
    pub(super) fn avoid(&mut self, endpoint: usize) {
        self.avoided.push(endpoint);
    }

    /// The endpoints that failed this call.
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

    /// A header can ask for any wait; the longest one once aborted the process.
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
    fn a_redirection_is_followed_once_and_then_taken_for_an_election() {
        let mut tries = Tries::default();
        let steps: Vec<_> = std::iter::from_fn(|| {
            tries.next(&redirection(), 0, Some(1), Repeat::Freely).map(|step| step.reason)
        })
        .collect();
        let away = RetryReason::Unavailable;
        assert_eq!(steps, [RetryReason::Redirected, away, away, away]);
    }

    #[test]
    fn a_redirection_back_to_who_refused_the_token_is_not_followed() {
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
    fn a_redirection_to_nobody_we_know_is_not_followed() {
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
