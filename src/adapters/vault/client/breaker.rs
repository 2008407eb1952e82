//! The circuit breaker of an endpoint. After several failures it blocks requests for a short time,
//! and then admits one probe at a time until the endpoint answers.

use std::time::Duration;

use crate::{domain::time::Monotonic, ports::telemetry::BreakerState};

/// The number of failures in a row that open the breaker.
const FAILURES_MAX: u32 = 3;

/// How long the breaker stays open. It doubles after each failed probe, from the first value up to
/// the last. The times are short, so that the end of an outage is noticed within seconds.
const OPEN_FIRST: Duration = Duration::from_secs(1);
const OPEN_LAST: Duration = Duration::from_secs(2);

/// A probe without a result after this time counts as given up by its caller.
const PROBE_MAX: Duration = Duration::from_secs(3);

/// The breaker of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breaker {
    /// Admits requests. The last `failures` requests failed.
    Closed { failures: u32 },
    /// Blocks requests until the given time. `times` probes have failed since the breaker opened.
    Open { until: Monotonic, times: u32 },
    /// A probe is running since the given time. `times` probes have failed before.
    Probing { since: Monotonic, times: u32 },
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Returns whether a request may be sent at `now`.
    pub(super) fn admits(self, now: Monotonic) -> bool {
        match self {
            Self::Closed { .. } => true,
            Self::Open { until, .. } => now >= until,
            Self::Probing { since, .. } => now.since(since) >= PROBE_MAX,
        }
    }

    /// Records that a request is sent at `now`. On an open breaker it is the probe. The caller
    /// checks [`Breaker::admits`] first.
    pub(super) fn sent(&mut self, now: Monotonic) {
        if let Self::Open { times, .. } | Self::Probing { times, .. } = *self {
            *self = Self::Probing { since: now, times };
        }
    }

    /// Records that the endpoint answered, possibly with a refusal. Closes the breaker.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Records that a request failed at `now`. `spread` in `[0, 1)` shortens the open time by up to
    /// a tenth, so that several processes do not probe together.
    pub(super) fn failed(&mut self, now: Monotonic, spread: f64) {
        let times = match *self {
            Self::Closed { failures } if failures + 1 < FAILURES_MAX => {
                *self = Self::Closed { failures: failures + 1 };
                return;
            }
            Self::Closed { .. } => 0,
            // The request was sent before the breaker opened, so it does not lengthen the open
            // time.
            Self::Open { .. } => return,
            Self::Probing { times, .. } => times + 1,
        };
        let open = OPEN_FIRST.saturating_mul(1 << times.min(8)).min(OPEN_LAST);
        *self = Self::Open { until: now.after(open.mul_f64(1.0 - spread / 10.0)), times };
    }

    /// Records that a request ended at `now` without saying anything about the endpoint. If a probe
    /// runs, it may have been that request, so the next request may be one too.
    pub(super) fn unjudged(&mut self, now: Monotonic) {
        if let Self::Probing { times, .. } = *self {
            *self = Self::Open { until: now, times };
        }
    }

    /// Returns the state for observers.
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
    fn opens_after_three_failures_in_a_row_and_not_earlier() {
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
    fn admits_one_probe_at_a_time_after_the_open_time() {
        let mut breaker = open();
        assert!(breaker.admits(at(1_000)));
        breaker.sent(at(1_000));
        assert!(!breaker.admits(at(1_001)));
        breaker.succeeded();
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn doubles_the_open_time_up_to_two_seconds() {
        let (mut breaker, mut now) = (open(), 0);
        for rest in [1_000, 2_000, 2_000] {
            assert!(!breaker.admits(at(now + rest - 1)) && breaker.admits(at(now + rest)));
            now += rest;
            breaker.sent(at(now));
            breaker.failed(at(now), 0.0);
        }
    }

    #[test]
    fn admits_another_probe_after_one_was_given_up() {
        let mut breaker = open();
        breaker.sent(at(1_000));
        assert!(breaker.admits(at(4_000)));
    }
}
