//! The wall clock as the keeper's answers correct it, carried on by the monotonic clock.

use std::time::Duration;

use super::time::{Monotonic, UnixTime};

/// How far the local clock may be off before the keeper's `Date` corrects it. `Date` has whole
/// seconds and differs between the nodes behind a load balancer, so a smaller difference is noise.
const TOLERANCE: Duration = Duration::from_secs(2);

/// A wall clock that was set at the last answer of the keeper. Before the first one it stands at 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct CorrectedClock {
    wall: UnixTime,
    at: Monotonic,
}

impl CorrectedClock {
    /// The clock before the first answer.
    pub(super) const UNSET: Self =
        Self { wall: UnixTime::from_secs(0), at: Monotonic::at(Duration::ZERO) };

    /// The clock as of an answer that came at `now`, when the local clock read `local` and the
    /// keeper's, where it told, `keeper`.
    pub(super) fn set(local: UnixTime, keeper: Option<UnixTime>, now: Monotonic) -> Self {
        let wall = keeper.filter(|keeper| keeper.apart(local) > TOLERANCE).unwrap_or(local);
        Self { wall, at: now }
    }

    /// What it reads at `now`.
    pub(super) fn wall(self, now: Monotonic) -> UnixTime {
        self.wall.after(now.since(self.at))
    }
}
