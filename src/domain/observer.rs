//! The observer: looks after the key's metadata and proves that wraps work, in the background,
//! so that `Status` never has to leave the process.

use std::{sync::Arc, time::Duration};

use super::{time::Monotonic, watch::KeyWatch};

/// How often the metadata is read.
const READ_EVERY: Duration = Duration::from_secs(15);

/// How often anything is tried while something fails or waits for its first proof.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// How old the writing version's proof may become before the next read renews it, so that it is
/// proven about once a minute and a lost permission shows within 75 s.
const PROVE_EVERY: Duration = Duration::from_secs(50);

/// How often it is decided what is due. Takeovers are noticed, and told, to this precision.
const TICK: Duration = Duration::from_secs(1);

/// Feeds a [`KeyWatch`].
#[derive(Debug)]
pub struct Observer {
    watch: Arc<KeyWatch>,
    last_read: Option<Monotonic>,
    /// The share of the time between reads that is waited: nodes of a cluster spread out.
    spread: f64,
}

impl Observer {
    /// An observer that has not looked yet.
    #[must_use]
    pub const fn new(watch: Arc<KeyWatch>) -> Self {
        Self { watch, last_read: None, spread: 1.0 }
    }

    /// Looks, for ever. Safe to cancel.
    pub async fn run(mut self) {
        loop {
            self.tick().await;
            self.watch.ports().clock.sleep(TICK).await;
        }
    }

    /// Does what is due now.
    pub async fn tick(&mut self) {
        let clock = Arc::clone(&self.watch.ports().clock);
        if self.is_due(clock.now()) {
            self.watch.read_metadata().await;
            self.watch.prove(PROVE_EVERY).await;
            self.last_read = Some(clock.now());
            self.spread = 1.0 - clock.jitter() / 10.0;
        } else {
            self.watch.tell();
        }
    }

    /// Asked at each tick, so that what a request's look has found is followed up soon.
    fn is_due(&self, now: Monotonic) -> bool {
        let every = if self.watch.is_unsettled() { RETRY_EVERY } else { READ_EVERY };
        self.last_read.is_none_or(|at| now.since(at) >= every.mul_f64(self.spread))
    }
}
