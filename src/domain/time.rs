//! The two kinds of time that the rules use. Both are plain values; a port reads the clocks.

use std::time::Duration;

/// The maximum time of a call to the keeper that has no deadline of a caller. It is also the budget
/// of a request without `grpc-timeout`. It is shorter than kube-apiserver's default of 3 s.
pub const CALL_BUDGET: Duration = Duration::from_millis(2_800);

/// A reading of the monotonic clock: the time since an origin that is fixed for this process.
///
/// Deadlines and ages use this clock, so a jump of the wall clock does not change them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// Returns the reading `elapsed` after the origin.
    #[must_use]
    pub const fn at(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// Returns the reading `wait` later than this one, or the latest possible one on overflow.
    #[must_use]
    pub const fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }

    /// Returns the reading `wait` earlier than this one, or the origin when that is later.
    #[must_use]
    pub const fn before(self, wait: Duration) -> Self {
        Self(self.0.saturating_sub(wait))
    }

    /// Returns the time since `earlier`, or zero when `earlier` is later than this one.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Wall-clock time in milliseconds since the Unix epoch.
///
/// Keepers report creation times in whole seconds. The times computed from them have milliseconds,
/// because all nodes switch the writing version at the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(i64);

impl UnixTime {
    /// Returns the time `seconds` after the epoch, saturating.
    #[must_use]
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }

    /// Returns the time `millis` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Returns the whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Returns the time `wait` later, saturating.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Returns the time since `earlier`, or zero when `earlier` is later than this one.
    /// The result has milliseconds.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let millis = self.0.saturating_sub(earlier.0);
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    /// Returns the absolute difference of the two times.
    #[must_use]
    pub fn apart(self, other: Self) -> Duration {
        self.since(other).max(other.since(self))
    }
}
