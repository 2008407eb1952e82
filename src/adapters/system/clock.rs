//! Reads the clocks of the machine.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use crate::{
    domain::time::{Monotonic, UnixTime},
    ports::clock::Clock,
};

/// The monotonic clock and the wall clock of the system, and the timer of the runtime.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// Returns a clock whose monotonic origin is now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the adapter that reads the clock")]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Monotonic {
        Monotonic::at(self.origin.elapsed())
    }

    #[expect(clippy::disallowed_methods, reason = "this is the adapter that reads the clock")]
    fn wall(&self) -> UnixTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixTime::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn jitter(&self) -> f64 {
        let mut bytes = [0; 4];
        // Without random bytes the nodes do not spread their work. That is harmless.
        let _unspread = aws_lc_rs::rand::fill(&mut bytes).is_err();
        f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    }

    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}
