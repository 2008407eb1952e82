//! A node: the provider's domain over the ports, with its own inexact clock.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use vault_kube_kms::{
    domain::{
        error::{Code, KmsError},
        health::OutagePolicy,
        key::KekVersion,
        key_id::{KeyIdentity, Lineage},
        observer::Observer,
        rotation::KeyRing,
        secret::Plaintext,
        service::KeyService,
        time::{Monotonic, UnixTime},
        view::KeyView,
        watch::KeyWatch,
    },
    ports::{
        Ports,
        clock::Clock,
        kms::{Encrypted, KeyManagement, Sealed, StatusAnswer},
        telemetry::{Event, Telemetry},
    },
};

use super::{
    control_plane::TROUBLE_MS,
    executor::{Executor, Until},
    keeper::{SimulatedKek, World, nonce_of},
    plants::{Plant, failure, other_id},
    told::Told,
};

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

    async fn sleep(&self, wait: Duration) {
        let world = self.world.clone();
        let until_ms = world.lock().unwrap().now_ms + wait.as_millis() as u64;
        Until { world, until_ms }.await;
    }
}

#[derive(Debug)]
struct Silence;

impl Telemetry for Silence {
    fn record(&self, _: Event<'_>) {}
}

pub struct Node {
    pub off_ms: Arc<AtomicI64>,
    pub started_ms: u64,
    /// The time since which Status reports an incident, if it does.
    pub incident_since_ms: Option<u64>,
    service: Arc<KeyService>,
    watch: Arc<KeyWatch>,
    world: Arc<Mutex<World>>,
    index: usize,
}

impl Node {
    pub fn start(
        world: &Arc<Mutex<World>>,
        executor: &mut Executor,
        index: usize,
        off_ms: Arc<AtomicI64>,
    ) -> Self {
        let clock = Drifting { world: world.clone(), off_ms: off_ms.clone() };
        let ports = Ports {
            kek: Arc::new(SimulatedKek { world: world.clone(), node: index }),
            clock: Arc::new(clock),
            telemetry: Arc::new(Silence),
        };
        let identity = KeyIdentity::new(Lineage::of_place("simulated", &["k"]), 0);
        let is_early = index == 2 && world.lock().unwrap().plant == Some(Plant::EarlySwitch);
        let delay = if is_early { Duration::ZERO } else { ROTATION_DELAY };
        let ring = KeyRing::new(identity, delay, BTreeMap::new());
        let grace = Duration::from_secs(30);
        let watch = Arc::new(KeyWatch::new(ports, ring, OutagePolicy::StopWrites, grace));
        executor.spawn(index, Observer::new(watch.clone()).run());
        let started_ms = {
            let mut world = world.lock().unwrap();
            world.told[index] = Told::default();
            world.now_ms
        };
        Self {
            off_ms,
            started_ms,
            incident_since_ms: None,
            service: Arc::new(KeyService::new(watch.clone(), false)),
            watch,
            world: world.clone(),
            index,
        }
    }

    /// Ends the process and starts it again. Its state and its calls are lost.
    pub fn restart(&mut self, executor: &mut Executor) {
        executor.end(self.index);
        executor.go_on(self.index);
        *self = Self::start(&self.world.clone(), executor, self.index, self.off_ms.clone());
    }

    /// Records whether Status reports an incident.
    pub fn note_incident(&mut self) {
        let incident = self
            .service
            .status()
            .is_err_and(|error| matches!(error.code(), Code::KeyReplaced | Code::KeyRolledBack));
        let now_ms = self.world.lock().unwrap().now_ms;
        self.incident_since_ms = incident.then(|| self.incident_since_ms.unwrap_or(now_ms));
    }

    pub fn status(&self) -> Result<StatusAnswer, KmsError> {
        planted_status(&self.service, &self.world)
    }

    pub fn view(&self) -> KeyView {
        let mut view = self.watch.view();
        if self.world.lock().unwrap().plant == Some(Plant::ForgottenVersion) {
            view.versions.remove(0);
        }
        view
    }

    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the version that writes.
    pub fn view_writer(&self) -> Option<KekVersion> {
        self.watch.standing().1.map(|writer| writer.version)
    }

    /// Asks Status, and then for a wrap of `seed` if the key id is another one than `held`.
    pub fn probe(
        &self,
        seed: [u8; 32],
        held: Option<String>,
    ) -> impl Future<Output = Result<(StatusAnswer, Option<Encrypted>), KmsError>> + 'static {
        let (service, world, index) = (self.service.clone(), self.world.clone(), self.index);
        async move {
            let status = planted_status(&service, &world)?;
            let (plant, now_ms) = {
                let world = world.lock().unwrap();
                (world.plant, world.now_ms)
            };
            if plant == Some(Plant::FailedPolls) && now_ms > TROUBLE_MS {
                return Err(failure(Code::Internal));
            }
            let is_held = held.as_deref() == Some(status.key_id.as_str());
            if is_held || plant == Some(Plant::NoEncrypt) {
                return Ok((status, None));
            }
            let until_ms = {
                let mut world = world.lock().unwrap();
                world.now_ms + world.chance.below(50)
            };
            Until { world: world.clone(), until_ms }.await;
            let deadline = soon(&world);
            let mut answer = service.encrypt(Plaintext::new(seed.to_vec()), deadline).await?;
            if let Some(plant) = plant {
                answer.key_id = plant.key_id(answer.key_id, now_ms);
            }
            let world = world.lock().unwrap();
            let wrapped_ms = world.wrapped_ms[&nonce_of(&answer.ciphertext)];
            let asked_ms = world.told[index].asked_ms.unwrap();
            assert!(
                asked_ms + 1_000 >= wrapped_ms,
                "node {index}, {} ms: nothing vouches for the wrap of {wrapped_ms} ms; the key was last read at {asked_ms} ms",
                world.now_ms,
            );
            drop(world);
            Ok((status, Some(answer)))
        }
    }

    pub fn decrypt(
        &self,
        sealed: Sealed,
    ) -> impl Future<Output = Result<Plaintext, KmsError>> + 'static {
        let (service, world) = (self.service.clone(), self.world.clone());
        async move {
            let plaintext = service.decrypt(sealed, soon(&world)).await;
            let plant = world.lock().unwrap().plant;
            match plant {
                Some(Plant::WrongPlaintext) => plaintext.map(|_| Plaintext::new(vec![0; 32])),
                Some(Plant::FailedRead) => Err(failure(Code::Internal)),
                _ => plaintext,
            }
        }
    }
}

/// Returns the answer of Status, with the planted fault if there is one.
fn planted_status(service: &KeyService, world: &Mutex<World>) -> Result<StatusAnswer, KmsError> {
    let mut status = service.status()?;
    let world = world.lock().unwrap();
    match world.plant {
        Some(Plant::OtherKeyId) => status.key_id = other_id(KekVersion::FIRST),
        Some(Plant::FailedStatus) if world.now_ms > TROUBLE_MS => {
            return Err(failure(Code::Internal));
        }
        Some(Plant::StrictProof) if world.now_ms > 30_000 => {
            return Err(failure(Code::ProofPending));
        }
        Some(plant) => status.key_id = plant.key_id(status.key_id, world.now_ms),
        None => (),
    }
    Ok(status)
}

fn soon(world: &Mutex<World>) -> Monotonic {
    Monotonic::at(Duration::from_millis(world.lock().unwrap().now_ms + 2_800))
}
