//! Tokio's paused clock. It moves only while all tasks wait. The wall clock of a node may be wrong.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use vault_kube_kms::{
    domain::time::{Monotonic, UnixTime},
    ports::clock::Clock,
};

use super::{chance::Chance, model::cluster::Cluster};

/// The begin of every simulation.
const EPOCH_MS: i64 = 1_800_000_000_000;

pub struct VirtualClock {
    cluster: Arc<Cluster>,
    client: usize,
    started: Instant,
    seed: u64,
}

impl VirtualClock {
    /// Makes the clock of the node of `client`.
    pub fn new(cluster: Arc<Cluster>, client: usize, seed: u64) -> Self {
        let started = cluster.journal.started();
        Self { cluster, client, started, seed }
    }
}

/// The right wall-clock time in milliseconds.
pub fn wall_ms(started: Instant) -> i64 {
    EPOCH_MS + started.elapsed().as_millis() as i64
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Monotonic {
        Monotonic::at(self.started.elapsed())
    }

    fn wall(&self) -> UnixTime {
        let mut state = self.cluster.state();
        let step = state.clock_steps_ms[self.client];
        if step != 0 {
            state.meet("wrong clock");
        }
        UnixTime::from_millis(wall_ms(self.started) + step)
    }

    fn jitter(&self) -> f64 {
        // One value for each moment, so that the order of the calls does not matter.
        let moment = self.started.elapsed().as_millis() as u64;
        Chance::new(self.seed ^ moment).below(1_000) as f64 / 1_000.0
    }

    async fn sleep(&self, wait: Duration) {
        sleep(wait).await;
    }
}

impl fmt::Debug for VirtualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VirtualClock")
    }
}
