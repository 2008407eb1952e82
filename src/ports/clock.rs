//! Outbound port: time and random numbers.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

use crate::domain::time::{Monotonic, UnixTime};

/// Reads clocks, waits, and gives random numbers. Tests and simulations use their own
/// implementation.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Clock: Debug + Send + Sync + 'static {
    /// Reads the monotonic clock, which never goes back. Never blocks.
    fn now(&self) -> Monotonic;

    /// Reads the local wall clock, which may jump.
    fn wall(&self) -> UnixTime;

    /// Returns a random number in `[0, 1)`, so that several nodes do not act at the same moment.
    fn jitter(&self) -> f64;

    /// Waits for `wait` on the monotonic clock. Safe to cancel.
    async fn sleep(&self, wait: Duration);
}
