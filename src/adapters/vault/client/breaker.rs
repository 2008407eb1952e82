//! A breaker: an endpoint that fails is left alone for a moment, and is then asked with one request
//! at a time until it answers.

use std::time::Duration;

use crate::{domain::time::Monotonic, ports::telemetry::BreakerState};

/// Failures in a row after which an endpoint is left alone.
const FAILURES_MAX: u32 = 3;

/// How long it is left alone: doubled each time that the one request failed too. Short, for the
/// end of an outage is to be noticed within seconds.
const REST_FIRST: Duration = Duration::from_secs(1);
const REST_LAST: Duration = Duration::from_secs(2);

/// A probe of which nothing has been heard for this long was given up by its caller.
const PROBE_MAX: Duration = Duration::from_secs(3);

/// The breaker of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breaker {
    /// It is asked; this many requests in a row have failed.
    Closed { failures: u32 },
    /// It is left alone until then, for the `times`-th time in a row.
    Open { until: Monotonic, times: u32 },
    /// One request is under way since then.
    Probing { since: Monotonic, times: u32 },
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Whether a request may be sent at `now`.
    pub(super) fn admits(self, now: Monotonic) -> bool {
        match self {
            Self::Closed { .. } => true,
            Self::Open { until, .. } => now >= until,
            Self::Probing { since, .. } => now.since(since) >= PROBE_MAX,
        }
    }

    /// A request is sent at `now`, as [`Breaker::admits`] allowed.
    pub(super) fn sent(&mut self, now: Monotonic) {
        if let Self::Open { times, .. } | Self::Probing { times, .. } = *self {
            *self = Self::Probing { since: now, times };
        }
    }

    /// The endpoint answered, be it with a refusal.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A request failed at `now`. `spread` in `[0, 1)` keeps nodes apart.
    pub(super) fn failed(&mut self, now: Monotonic, spread: f64) {
        let times = match *self {
            Self::Closed { failures } if failures + 1 < FAILURES_MAX => {
                *self = Self::Closed { failures: failures + 1 };
                return;
            }
            Self::Closed { .. } => 0,
            // What was sent before it opened does not make it rest longer.
            Self::Open { .. } => return,
            Self::Probing { times, .. } => times + 1,
        };
        let rest = REST_FIRST.saturating_mul(1 << times.min(8)).min(REST_LAST);
        *self = Self::Open { until: now.after(rest.mul_f64(1.0 - spread / 10.0)), times };
    }

    /// For those who look on.
    pub(super) fn state(self) -> BreakerState {
        match self {
            Self::Closed { .. } => BreakerState::Closed,
            Self::Open { .. } => BreakerState::Open,
            Self::Probing { .. } => BreakerState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::at(Duration::from_millis(millis))
    }

    fn open() -> Breaker {
        let mut breaker = Breaker::default();
        (0..FAILURES_MAX).for_each(|_| breaker.failed(at(0), 0.0));
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_not_before() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            breaker.failed(at(0), 0.0);
            breaker.failed(at(0), 0.0);
            assert!(breaker.admits(at(0)));
            breaker.succeeded();
        }
        assert!(!open().admits(at(999)));
    }

    #[test]
    fn one_request_at_a_time_finds_out_whether_it_is_back() {
        let mut breaker = open();
        assert!(breaker.admits(at(1_000)));
        breaker.sent(at(1_000));
        assert!(!breaker.admits(at(1_001)));
        breaker.succeeded();
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn it_rests_longer_each_time_up_to_two_seconds() {
        let (mut breaker, mut now) = (open(), 0);
        for rest in [1_000, 2_000, 2_000] {
            assert!(!breaker.admits(at(now + rest - 1)) && breaker.admits(at(now + rest)));
            now += rest;
            breaker.sent(at(now));
            breaker.failed(at(now), 0.0);
        }
    }

    #[test]
    fn a_probe_that_was_given_up_does_not_block_it() {
        let mut breaker = open();
        breaker.sent(at(1_000));
        assert!(breaker.admits(at(4_000)));
    }
}
