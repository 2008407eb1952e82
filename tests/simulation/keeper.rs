//! The keeper: one key, and several replicas that lag by some seconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    task::Waker,
};

use async_trait::async_trait;
use vault_kube_kms::{
    domain::{
        envelope::{AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::{KekSnapshot, KekVersion},
        secret::Plaintext,
        time::{Monotonic, UnixTime},
    },
    ports::kek::{Kek, Unwrap, Wrapped},
};

use super::{chance::Chance, executor::Until, plants::Plant, told::Told};

/// The true time of the simulation's start.
pub const EPOCH_MS: i64 = 1_700_000_000_000;

/// One state of the key.
#[derive(Clone, Debug, Default)]
pub struct KeyState {
    /// Version to (creation second, material).
    pub versions: BTreeMap<u32, (i64, u64)>,
    pub min_decryption: u32,
    pub min_encryption: u32,
}

impl KeyState {
    pub fn latest(&self) -> u32 {
        *self.versions.last_key_value().unwrap().0
    }

    fn kept(&self, version: u32) -> Option<u64> {
        let found = self.versions.get(&version)?;
        (version >= self.min_decryption).then_some(found.1)
    }

    /// Returns whether this state can unwrap a ciphertext of `version` with `material`.
    pub fn reads(&self, version: u32, material: u64) -> bool {
        self.kept(version) == Some(material)
    }
}

#[derive(Debug)]
pub struct World {
    pub now_ms: u64,
    pub chance: Chance,
    /// Every state of the key, with its start.
    pub history: Vec<(u64, KeyState)>,
    pub lags_ms: [u64; 3],
    pub has_date: bool,
    /// Nodes that cannot reach the keeper.
    pub cut: BTreeSet<usize>,
    /// Nodes whose policy lacks a right.
    pub denied: BTreeSet<usize>,
    /// Nodes whose calls take seconds.
    pub slow: BTreeSet<usize>,
    /// Nodes that may not read the key's metadata.
    pub unread: BTreeSet<usize>,
    /// The answers to each node since its start.
    pub told: [Told; 3],
    /// A planted fault of the program.
    pub plant: Option<Plant>,
    /// The first answer to each node, for [`Plant::CachedKey`].
    first: [Option<KekSnapshot>; 3],
    /// The wakers in the order of their times.
    pub timers: BTreeMap<(u64, u64), Waker>,
    /// The time of each wrap's answer, by its nonce.
    pub wrapped_ms: BTreeMap<u64, u64>,
    timers_set: u64,
    materials: u64,
    nonce: u64,
}

impl World {
    pub fn new(seed: u64, most_lag_ms: u64) -> Self {
        let mut chance = Chance::new(seed);
        let lags_ms = [0, chance.below(most_lag_ms), chance.below(most_lag_ms)];
        let has_date = !chance.once_in(4);
        let mut world = Self {
            now_ms: 0,
            chance,
            history: Vec::new(),
            lags_ms,
            has_date,
            cut: BTreeSet::new(),
            denied: BTreeSet::new(),
            slow: BTreeSet::new(),
            unread: BTreeSet::new(),
            told: Default::default(),
            plant: None,
            first: Default::default(),
            timers: BTreeMap::new(),
            wrapped_ms: BTreeMap::new(),
            timers_set: 0,
            materials: 0,
            nonce: 0,
        };
        world.make_anew();
        world
    }

    pub fn wall_ms(&self) -> i64 {
        EPOCH_MS + self.now_ms as i64
    }

    pub fn truth(&self) -> &KeyState {
        &self.history.last().unwrap().1
    }

    pub fn change(&mut self, change: impl FnOnce(&mut KeyState)) {
        let mut state = self.truth().clone();
        change(&mut state);
        self.history.push((self.now_ms, state));
    }

    fn material(&mut self) -> (i64, u64) {
        self.materials += 1;
        (self.wall_ms() / 1_000, self.materials)
    }

    pub fn rotate(&mut self) {
        let made = self.material();
        self.change(|state| {
            state.versions.insert(state.latest() + 1, made);
        });
    }

    /// Returns whether a rotation would give a version number that was used before.
    pub fn next_number_was_used(&self) -> bool {
        let next = self.truth().latest() + 1;
        self.history.iter().any(|(_, state)| state.versions.contains_key(&next))
    }

    /// Deletes the key and makes another of the same name.
    pub fn make_anew(&mut self) {
        let made = self.material();
        let state = KeyState { versions: [(1, made)].into(), min_decryption: 1, min_encryption: 0 };
        self.history.push((self.now_ms, state));
    }

    /// Returns whether every state of the last `span_ms` could unwrap `material`.
    pub fn read_throughout(&self, version: u32, material: u64, span_ms: u64) -> bool {
        let from = self.now_ms.saturating_sub(span_ms);
        let first = self.history.iter().rposition(|(at, _)| *at <= from).unwrap_or(0);
        self.history[first..].iter().all(|(_, state)| state.reads(version, material))
    }

    pub fn wake_at(&mut self, at_ms: u64, waker: Waker) {
        self.timers_set += 1;
        self.timers.insert((at_ms, self.timers_set), waker);
    }

    /// Returns the time of a message between `node` and the keeper.
    fn latency_ms(&mut self, node: usize) -> u64 {
        if self.slow.contains(&node) {
            return 500 + self.chance.below(1_500);
        }
        match self.chance.below(20) {
            0 => self.chance.below(700),
            _ => 2 + self.chance.below(30),
        }
    }

    fn replica(&mut self) -> KeyState {
        let replica = self.chance.below(3) as usize;
        let seen = self.now_ms.saturating_sub(self.lags_ms[replica]);
        let at = self.history.iter().rposition(|(at, _)| *at <= seen).unwrap_or(0);
        self.history[at].1.clone()
    }
}

/// The connection of one node to the keeper.
#[derive(Debug)]
pub struct SimulatedKek {
    pub world: Arc<Mutex<World>>,
    pub node: usize,
}

impl SimulatedKek {
    fn planted_cache(&self) -> Option<KekSnapshot> {
        let world = self.world.lock().unwrap();
        (world.plant == Some(Plant::CachedKey)).then(|| world.first[self.node].clone())?
    }

    /// Waits for the time of a message. Fails at the deadline.
    async fn travel(&self, deadline: Monotonic) -> Result<(), KmsError> {
        let (arrives_ms, deadline_ms) = {
            let mut world = self.world.lock().unwrap();
            let deadline_ms = deadline.since(Monotonic::default()).as_millis() as u64;
            (world.now_ms + world.latency_ms(self.node), deadline_ms)
        };
        let until_ms = arrives_ms.min(deadline_ms);
        Until { world: self.world.clone(), until_ms }.await;
        if arrives_ms > deadline_ms { Err(error(Code::KeeperTimeout)) } else { Ok(()) }
    }

    fn now_ms(&self) -> u64 {
        self.world.lock().unwrap().now_ms
    }

    fn reach(
        &self,
        needs_right: bool,
    ) -> Result<(std::sync::MutexGuard<'_, World>, KeyState), KmsError> {
        let mut world = self.world.lock().unwrap();
        if world.cut.contains(&self.node) {
            return Err(error(Code::KeeperUnreachable));
        }
        if needs_right && world.denied.contains(&self.node) {
            return Err(error(Code::PermissionDenied));
        }
        let state = world.replica();
        Ok((world, state))
    }
}

fn error(code: Code) -> KmsError {
    KmsError::new(code, "simulated", "none")
}

/// version, material, nonce, then length and bytes of the associated data, then the plaintext.
fn seal(version: u32, material: u64, nonce: u64, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut bytes = version.to_be_bytes().to_vec();
    bytes.extend_from_slice(&material.to_be_bytes());
    bytes.extend_from_slice(&nonce.to_be_bytes());
    bytes.push(aad.len() as u8);
    bytes.extend_from_slice(aad);
    bytes.extend_from_slice(plaintext);
    bytes
}

/// Returns the nonce of a ciphertext of this keeper.
pub fn nonce_of(ciphertext: &Ciphertext) -> u64 {
    u64::from_be_bytes(ciphertext.as_bytes()[12..20].try_into().unwrap())
}

/// Returns the version and the material of a ciphertext of this keeper.
pub fn written_with(ciphertext: &Ciphertext) -> (u32, u64) {
    let bytes = ciphertext.as_bytes();
    let version = u32::from_be_bytes(*bytes.first_chunk().unwrap());
    (version, u64::from_be_bytes(bytes[4..12].try_into().unwrap()))
}

#[async_trait]
impl Kek for SimulatedKek {
    async fn describe(&self, deadline: Monotonic) -> Result<KekSnapshot, KmsError> {
        let asked_ms = self.now_ms();
        if let Some(first) = self.planted_cache() {
            return Ok(first);
        }
        self.travel(deadline).await?;
        let snapshot = {
            let (mut world, state) = self.reach(false)?;
            if world.unread.contains(&self.node) {
                return Err(error(Code::KeeperFailed));
            }
            let skew = world.chance.below(1_000) as i64 - 500;
            let date = (world.wall_ms() + skew) / 1_000;
            let number = |number| KekVersion::new(number).unwrap();
            let kept = state.versions.range(state.min_decryption..);
            let dated = |(v, (born, _)): (&u32, &(i64, u64))| {
                (number(*v), UnixTime::from_secs(*born).into())
            };
            KekSnapshot::new(kept.map(dated))
                .with_latest(number(state.latest()))
                .with_min_decryption(number(state.min_decryption))
                .with_min_encryption(KekVersion::new(state.min_encryption))
                .with_keeper_time(world.has_date.then(|| UnixTime::from_secs(date)))
        };
        self.travel(deadline).await?;
        let mut world = self.world.lock().unwrap();
        let now_ms = world.now_ms;
        world.told[self.node].answer(asked_ms, now_ms, &snapshot);
        world.first[self.node].get_or_insert_with(|| snapshot.clone());
        Ok(snapshot)
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        deadline: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        self.travel(deadline).await?;
        let (sealed, nonce) = {
            let (mut world, state) = self.reach(true)?;
            if version.get() > state.latest() {
                return Err(error(Code::VersionNotYet));
            }
            let material =
                state.kept(version.get()).filter(|_| version.get() >= state.min_encryption);
            let material = material.ok_or_else(|| error(Code::VersionRetired))?;
            world.nonce += 1;
            let aad = associated_data.as_bytes();
            (seal(version.get(), material, world.nonce, aad, plaintext.expose()), world.nonce)
        };
        self.travel(deadline).await?;
        let mut world = self.world.lock().unwrap();
        let now_ms = world.now_ms;
        world.wrapped_ms.insert(nonce, now_ms);
        Ok(Wrapped::new(Ciphertext::new(sealed)?, version))
    }

    async fn unwrap<'a>(
        &self,
        sealed: Unwrap<'a>,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        self.travel(deadline).await?;
        let (world, state) = self.reach(true)?;
        drop(world);
        let bytes = sealed.ciphertext.as_bytes();
        let (version, material) = written_with(sealed.ciphertext);
        if version > state.latest() {
            return Err(error(Code::VersionNotYet));
        }
        let Some(held) = state.kept(version) else { return Err(error(Code::VersionRetired)) };
        let (aad, plaintext) = bytes[21..].split_at(bytes[20].into());
        if held != material || aad != sealed.associated_data.as_bytes() {
            return Err(error(Code::CiphertextRejected));
        }
        self.travel(deadline).await?;
        Ok(Plaintext::new(plaintext.to_vec()))
    }

    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
        let first = ciphertext.as_bytes().first_chunk().copied().map(u32::from_be_bytes);
        first.and_then(KekVersion::new).ok_or_else(|| error(Code::CiphertextRejected))
    }
}
