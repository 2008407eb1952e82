//! A wall clock that the keeper's answers correct and the monotonic clock advances.

use std::time::Duration;

use super::time::{Monotonic, UnixTime};

/// How much the local clock may differ from the keeper's `Date` before `Date` replaces it. `Date`
/// has whole seconds and differs between the nodes behind a load balancer, so a smaller difference
/// is noise.
const TOLERANCE: Duration = Duration::from_secs(2);

/// A wall clock that is set at each answer of the keeper. It reads the epoch plus the monotonic
/// time before the first answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct CorrectedClock {
    wall: UnixTime,
    at: Monotonic,
}

impl CorrectedClock {
    /// The clock before the first answer of the keeper.
    pub(super) const UNSET: Self =
        Self { wall: UnixTime::from_secs(0), at: Monotonic::at(Duration::ZERO) };

    /// Sets the clock at an answer of the keeper that came at `now`. `local` is the local clock.
    /// `keeper` is the keeper's clock, or `None` when the answer does not contain it.
    pub(super) fn set(local: UnixTime, keeper: Option<UnixTime>, now: Monotonic) -> Self {
        let wall = keeper.filter(|keeper| keeper.apart(local) > TOLERANCE).unwrap_or(local);
        Self { wall, at: now }
    }

    /// Returns the wall-clock time at `now`.
    pub(super) fn wall(self, now: Monotonic) -> UnixTime {
        self.wall.after(now.since(self.at))
    }
}
