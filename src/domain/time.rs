//! The two kinds of time the rules speak of. Both are plain values; reading a clock is a port.

use std::time::Duration;

/// How long a call to the keeper may take that no caller set a deadline for. It is also the
/// budget of a request without `grpc-timeout`: less than kube-apiserver's default of 3 s.
pub const CALL_BUDGET: Duration = Duration::from_millis(2_800);

/// A reading of the monotonic clock: the time since an origin that only this process knows.
///
/// Deadlines and ages are counted in it, so a wall clock that jumps changes neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// The reading `elapsed` after the origin.
    #[must_use]
    pub const fn at(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// The reading `wait` later than this one; the latest representable one on overflow.
    #[must_use]
    pub const fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }

    /// The reading `wait` earlier than this one; the origin if there was none so early.
    #[must_use]
    pub const fn before(self, wait: Duration) -> Self {
        Self(self.0.saturating_sub(wait))
    }

    /// The time since `earlier`; zero if `earlier` is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Wall-clock time in milliseconds since the Unix epoch.
///
/// Keepers stamp key versions in whole seconds; the instants computed from those stamps are kept
/// finer, because all nodes switch the writing version at one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(i64);

impl UnixTime {
    /// The time `seconds` after the epoch, saturating.
    #[must_use]
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }

    /// The time `millis` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// The time `wait` later, saturating.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to here; zero if `earlier` is in fact later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let millis = self.0.saturating_sub(earlier.0);
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    /// How far apart two times are, whichever comes first.
    #[must_use]
    pub fn apart(self, other: Self) -> Duration {
        self.since(other).max(other.since(self))
    }
}
