//! Outbound: time and chance.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

use crate::domain::time::{Monotonic, UnixTime};

/// Clocks, waiting and chance. Tests and simulations bring their own.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Clock: Debug + Send + Sync + 'static {
    /// The monotonic clock. Never blocks, never goes back.
    fn now(&self) -> Monotonic;

    /// The local wall clock, which may jump.
    fn wall(&self) -> UnixTime;

    /// A number in `[0, 1)`, to spread out what several nodes do.
    fn jitter(&self) -> f64;

    /// Waits for `wait`, by the monotonic clock. Safe to cancel.
    async fn sleep(&self, wait: Duration);
}
