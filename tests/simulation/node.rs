//! A node: the provider's domain over the ports, with a clock of its own that is never right.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use vault_kube_kms::{
    domain::{
        error::{Code, KmsError},
        health::OutagePolicy,
        key_id::{KeyIdentity, Lineage},
        observer::Observer,
        rotation::KeyRing,
        secret::Plaintext,
        service::KeyService,
        time::{Monotonic, UnixTime},
        watch::KeyWatch,
    },
    ports::{
        Ports,
        clock::Clock,
        kms::{Encrypted, KeyManagement, Sealed, StatusAnswer},
        telemetry::{Event, Telemetry},
    },
};

use super::keeper::{SimulatedKek, World};

pub const ROTATION_DELAY: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Drifting {
    world: Arc<Mutex<World>>,
    off_ms: Arc<AtomicI64>,
}

#[async_trait]
impl Clock for Drifting {
    fn now(&self) -> Monotonic {
        Monotonic::at(Duration::from_millis(self.world.lock().unwrap().now_ms))
    }

    fn wall(&self) -> UnixTime {
        let right = self.world.lock().unwrap().wall_ms();
        UnixTime::from_millis(right + self.off_ms.load(Ordering::Relaxed))
    }

    fn jitter(&self) -> f64 {
        self.world.lock().unwrap().chance.below(1_000) as f64 / 1_000.0
    }

    async fn sleep(&self, _: Duration) {}
}

#[derive(Debug)]
struct Silence;

impl Telemetry for Silence {
    fn record(&self, _: Event<'_>) {}
}

pub struct Node {
    pub off_ms: Arc<AtomicI64>,
    pub started_ms: u64,
    /// Since when Status tells an incident, if it does.
    pub incident_since_ms: Option<u64>,
    service: KeyService,
    observer: Observer,
    world: Arc<Mutex<World>>,
    index: usize,
}

impl Node {
    pub fn start(world: &Arc<Mutex<World>>, index: usize, off_ms: Arc<AtomicI64>) -> Self {
        let clock = Drifting { world: world.clone(), off_ms: off_ms.clone() };
        let ports = Ports {
            kek: Arc::new(SimulatedKek { world: world.clone(), node: index }),
            clock: Arc::new(clock),
            telemetry: Arc::new(Silence),
        };
        let identity = KeyIdentity::new(Lineage::of_place("simulated", &["k"]), 0);
        let ring = KeyRing::new(identity, ROTATION_DELAY, BTreeMap::new());
        let grace = Duration::from_secs(30);
        let watch = Arc::new(KeyWatch::new(ports, ring, OutagePolicy::StopWrites, grace));
        Self {
            off_ms,
            started_ms: world.lock().unwrap().now_ms,
            incident_since_ms: None,
            service: KeyService::new(watch.clone(), false),
            observer: Observer::new(watch),
            world: world.clone(),
            index,
        }
    }

    /// Ends the process and starts it again: all it knew is gone.
    pub fn restart(&mut self) {
        *self = Self::start(&self.world.clone(), self.index, self.off_ms.clone());
    }

    pub fn tick(&mut self) {
        now(self.observer.tick());
        let incident = self
            .service
            .status()
            .is_err_and(|error| matches!(error.code(), Code::KeyReplaced | Code::KeyRolledBack));
        let now_ms = self.world.lock().unwrap().now_ms;
        self.incident_since_ms = incident.then(|| self.incident_since_ms.unwrap_or(now_ms));
    }

    pub fn status(&self) -> Result<StatusAnswer, KmsError> {
        self.service.status()
    }

    pub fn encrypt(&self, seed: [u8; 32]) -> Result<Encrypted, KmsError> {
        now(self.service.encrypt(Plaintext::new(seed.to_vec()), self.soon()))
    }

    pub fn decrypt(&self, sealed: Sealed) -> Result<Plaintext, KmsError> {
        now(self.service.decrypt(sealed, self.soon()))
    }

    fn soon(&self) -> Monotonic {
        let now_ms = self.world.lock().unwrap().now_ms;
        Monotonic::at(Duration::from_millis(now_ms + 2_800))
    }
}

/// Nothing in the simulation waits: a keeper answers at once or not at all.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing waits")
}
