//! The keeper in memory as a subject, with all hooks.

use std::sync::Arc;

use async_trait::async_trait;
use vault_kube_kms::{
    adapters::{layers::seal::Seal, system::clock::SystemClock},
    domain::key::KekVersion,
    ports::{clock::Clock, kek::Kek},
    testkit::{Hook, Subject},
};

use super::{faults::Fault, keeper::MemoryKek, state::Way};

/// The keeper, with the hooks that change its state.
pub struct Memory(Arc<MemoryKek>);

impl Memory {
    pub fn new(fault: Option<Fault>) -> Self {
        Self(Arc::new(MemoryKek::new(fault, Arc::new(SystemClock::new()))))
    }

    /// A keeper without a fault, whose versions have no creation times.
    pub fn without_times() -> Self {
        let mut keeper = MemoryKek::new(None, Arc::new(SystemClock::new()));
        keeper.knows_times = false;
        Self(Arc::new(keeper))
    }

    fn set(&self, way: Way) -> Hook {
        self.0.way.send_replace(way);
        Hook::Done
    }
}

#[async_trait]
impl Subject for Memory {
    fn kek(&self) -> Arc<dyn Kek> {
        self.0.clone()
    }

    async fn rotate(&self) {
        self.0.state().rotate(&*self.0.clock, self.0.fault);
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.0.clock.clone()
    }

    async fn outage(&self, away: bool) -> Hook {
        self.set(if away { Way::Away } else { Way::Open })
    }

    async fn retire(&self, version: KekVersion) -> Hook {
        self.0.state().min_decryption = version.next();
        Hook::Done
    }

    async fn replace(&self) -> Hook {
        self.0.state().replace(&*self.0.clock, self.0.fault);
        Hook::Done
    }

    async fn hang(&self, hangs: bool) -> Hook {
        self.set(if hangs { Way::Hangs } else { Way::Open })
    }
}

/// A keeper that does not bind, inside the layer that binds for it.
pub struct Sealed(pub Memory);

#[async_trait]
impl Subject for Sealed {
    fn kek(&self) -> Arc<dyn Kek> {
        Arc::new(Seal::new(self.0.kek()))
    }

    async fn rotate(&self) {
        self.0.rotate().await;
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.0.clock()
    }

    async fn outage(&self, away: bool) -> Hook {
        self.0.outage(away).await
    }

    async fn retire(&self, version: KekVersion) -> Hook {
        self.0.retire(version).await
    }

    async fn replace(&self) -> Hook {
        self.0.replace().await
    }

    async fn hang(&self, hangs: bool) -> Hook {
        self.0.hang(hangs).await
    }
}
