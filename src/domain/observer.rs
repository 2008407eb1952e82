//! Reads the key's metadata and proves the writing versions in the background, so that `Status`
//! needs no call to the keeper.

use std::{sync::Arc, time::Duration};

use super::{time::Monotonic, watch::KeyWatch};

/// The time between two reads of the metadata.
const READ_EVERY: Duration = Duration::from_secs(15);

/// The time between two reads while anything fails, or while a version waits for its first proof.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// The age from which the next read renews the writing version's proof. The version is so proven
/// about once a minute, and the loss of a permission shows within 75 s.
const PROVE_EVERY: Duration = Duration::from_secs(50);

/// The time between two checks of what is due. Takeovers are reported with this precision.
const TICK: Duration = Duration::from_secs(1);

/// Keeps a [`KeyWatch`] current.
#[derive(Debug)]
pub struct Observer {
    watch: Arc<KeyWatch>,
    last_read: Option<Monotonic>,
    /// A factor of 0.9 to 1 for the time between reads, so that the nodes of a cluster do not all
    /// read at the same moment.
    spread: f64,
}

impl Observer {
    /// Makes an observer whose first tick reads the metadata.
    #[must_use]
    pub const fn new(watch: Arc<KeyWatch>) -> Self {
        Self { watch, last_read: None, spread: 1.0 }
    }

    /// Observes the key and never returns. Safe to cancel.
    pub async fn run(mut self) {
        loop {
            self.tick().await;
            self.watch.ports().clock.sleep(TICK).await;
        }
    }

    /// Reads the metadata and proves the versions when that is due. Otherwise reports changes that
    /// time alone has caused, such as a takeover.
    pub async fn tick(&mut self) {
        let clock = Arc::clone(&self.watch.ports().clock);
        if self.is_due(clock.now()) {
            self.watch.read_metadata().await;
            self.watch.prove(PROVE_EVERY).await;
            self.last_read = Some(clock.now());
            self.spread = 1.0 - clock.jitter() / 10.0;
        } else {
            self.watch.report();
        }
    }

    /// Returns whether a read is due. It is evaluated at each tick, so that the observer soon
    /// follows up what a refresh of a request has found.
    fn is_due(&self, now: Monotonic) -> bool {
        let every = if self.watch.is_unsettled() { RETRY_EVERY } else { READ_EVERY };
        self.last_read.is_none_or(|at| now.since(at) >= every.mul_f64(self.spread))
    }
}
