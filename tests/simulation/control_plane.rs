//! All of it together, step by step, and what must hold at every step.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use vault_kube_kms::{
    domain::{error::KmsError, secret::Plaintext},
    ports::kms::{Encrypted, StatusAnswer},
};

use super::{
    api_server::{ApiServer, Stored},
    executor::{Call, Executor, Progress},
    keeper::{World, written_with},
    node::{Node, ROTATION_DELAY},
};

type Check = Call<Result<(StatusAnswer, Option<Encrypted>), KmsError>>;

/// Replicas lag for less than this; the rotation delay covers it and two polls.
const LAG_MS: u64 = 25_000;

/// How long faults happen, and how long everything then has to heal.
const TROUBLE_MS: u64 = 360_000;
const PEACE_MS: u64 = 240_000;

/// After a change at the keeper, every node knows it this much later: the lag and a poll, and a
/// little.
const SETTLED_MS: u64 = LAG_MS + 20_000;

/// No call takes longer, but for those to a node that stands still.
const CALL_MS: u64 = 4_000;

/// A key that went back is an incident 60 s after every replica shows it.
const NOTICED_MS: u64 = SETTLED_MS + 65_000;

/// An operator restarts a node that has told an incident for this long.
const ACKNOWLEDGED_MS: u64 = 30_000;

/// How far apart nodes may switch: clocks are left alone up to 2 s, the keeper's has whole seconds
/// and differs between replicas by half a second either way, and steps are one second.
const CLOCK_ERROR_MS: u64 = 5_000;

pub struct ControlPlane {
    seed: u64,
    talks: bool,
    world: Arc<Mutex<World>>,
    executor: Executor,
    nodes: Vec<Node>,
    servers: Vec<ApiServer>,
    etcd: Vec<Arc<Stored>>,
    /// Reads that are under way, each by a server.
    reads: Vec<(usize, Arc<Stored>, Call<Result<Plaintext, KmsError>>)>,
    /// Encrypts that are under way for [`Self::finish_checks`], each at a node.
    checks: Vec<(usize, Check)>,
    /// Until when each node stands still.
    still_until_ms: [u64; 3],
    seeds: u64,
    /// Which material each key id ever stood for.
    ids: BTreeMap<String, u64>,
    /// The ids that each node told since it last settled.
    told: Vec<Vec<String>>,
    /// When the key last changed otherwise than by a rotation.
    upheaval_ms: u64,
    /// When another key came to stand under the name, or an older state of it.
    replaced_ms: Vec<u64>,
    /// When each node could last not reach the keeper, or was denied.
    trouble_ms: Vec<u64>,
}

impl ControlPlane {
    pub fn new(seed: u64, talks: bool) -> Self {
        let mut plane = Self::with_lag(seed, LAG_MS);
        plane.talks = talks;
        plane
    }

    pub fn with_lag(seed: u64, most_lag_ms: u64) -> Self {
        let world = Arc::new(Mutex::new(World::new(seed, most_lag_ms)));
        let clocks = (0..3).map(|_| Arc::new(AtomicI64::new(0))).collect::<Vec<_>>();
        let mut executor = Executor::default();
        let nodes = clocks.into_iter().enumerate();
        let nodes =
            nodes.map(|(index, clock)| Node::start(&world, &mut executor, index, clock)).collect();
        Self {
            seed,
            talks: false,
            executor,
            nodes,
            servers: (0..3).map(|_| ApiServer::default()).collect(),
            etcd: Vec::new(),
            reads: Vec::new(),
            checks: Vec::new(),
            still_until_ms: [0; 3],
            seeds: 0,
            ids: BTreeMap::new(),
            told: vec![Vec::new(); 3],
            upheaval_ms: 0,
            replaced_ms: Vec::new(),
            trouble_ms: vec![0; 3],
            world,
        }
    }

    pub fn run(mut self) {
        while self.now() < TROUBLE_MS {
            self.trouble();
            self.step();
        }
        self.end_trouble();
        while self.now() < TROUBLE_MS + PEACE_MS {
            self.step();
        }
        self.check_that_all_is_well();
    }

    fn now(&self) -> u64 {
        self.world.lock().unwrap().now_ms
    }

    fn below(&self, bound: u64) -> u64 {
        self.world.lock().unwrap().chance.below(bound)
    }

    fn say(&self, what: std::fmt::Arguments<'_>) {
        if self.talks {
            eprintln!("{:>6} s  {what}", self.now() / 1_000);
        }
    }

    /// Something happens, now and then.
    fn trouble(&mut self) {
        let node = self.below(3) as usize;
        match self.below(400) {
            0..8 => {
                self.say(format_args!("the key is rotated"));
                // After a rollback a number comes to stand for another key.
                if self.world.lock().unwrap().next_number_was_used() {
                    self.replaced();
                }
                self.world.lock().unwrap().rotate();
            }
            8..12 => self.set_minimums(),
            12 => {
                self.say(format_args!("the key is deleted and made anew"));
                self.replaced();
                self.world.lock().unwrap().make_anew();
            }
            13 => self.restore_backup(),
            14..18 => {
                self.say(format_args!("node {node} loses the keeper"));
                self.world.lock().unwrap().cut.insert(node);
            }
            18..28 => {
                self.say(format_args!("all reach the keeper"));
                self.world.lock().unwrap().cut.clear();
            }
            28..30 => {
                self.say(format_args!("node {node} loses its rights"));
                self.world.lock().unwrap().denied.insert(node);
            }
            30..34 => self.world.lock().unwrap().denied.clear(),
            34..38 => self.move_clock(node),
            38..41 => {
                self.say(format_args!("node {node} restarts"));
                self.restart(node);
            }
            41..45 => {
                self.say(format_args!("API server {node} restarts"));
                self.servers[node].restart();
                self.reads.retain(|(server, ..)| *server != node);
            }
            45..48 => {
                let seconds = 2 + self.below(38);
                self.say(format_args!("node {node} stands still for {seconds} s"));
                self.still_until_ms[node] = self.now() + seconds * 1_000;
                self.executor.stand_still(node);
            }
            48..51 => {
                self.say(format_args!("the keeper is slow for node {node}"));
                self.world.lock().unwrap().slow.insert(node);
            }
            51..56 => self.world.lock().unwrap().slow.clear(),
            56..59 => {
                self.say(format_args!("the keeper does not tell node {node} of its key"));
                self.world.lock().unwrap().unread.insert(node);
            }
            59..64 => self.world.lock().unwrap().unread.clear(),
            _ => (),
        }
    }

    fn set_minimums(&mut self) {
        let (one, two) = (self.below(4), self.below(4));
        self.upheaval_ms = self.now();
        let mut world = self.world.lock().unwrap();
        world.change(|state| {
            let latest = state.latest();
            let decryption = latest.saturating_sub(one as u32).max(1);
            state.min_decryption = decryption;
            let encryption = latest.saturating_sub(two as u32).max(decryption);
            state.min_encryption = if two == 3 { 0 } else { encryption };
            // Once in a while what was archived is trimmed away for good.
            if one == 0 && two == 0 {
                state.versions.retain(|version, _| *version >= decryption);
            }
        });
        let state = world.truth().clone();
        drop(world);
        self.say(format_args!("minimums {}, {}", state.min_decryption, state.min_encryption));
    }

    fn replaced(&mut self) {
        self.upheaval_ms = self.now();
        self.replaced_ms.push(self.upheaval_ms);
    }

    /// The key goes back to what it was at some moment.
    fn restore_backup(&mut self) {
        self.replaced();
        let mut world = self.world.lock().unwrap();
        let count = world.history.len() as u64;
        let at = world.chance.below(count) as usize;
        let (now, backup) = (world.now_ms, world.history[at].1.clone());
        world.history.push((now, backup));
        drop(world);
        self.say(format_args!("the key is restored as of change {at} of {count}"));
    }

    fn move_clock(&mut self, node: usize) {
        let has_date = self.world.lock().unwrap().has_date;
        // Without the keeper's clock nothing corrects ours, so it must be nearly right.
        let most = if has_date { 3_600_000 } else { 2_000 };
        // Half of them near the edge at which the keeper's clock begins to correct ours.
        let off = if self.below(2) == 0 {
            let edge = 1_500 + self.below(1_000) as i64;
            if self.below(2) == 0 { edge } else { -edge }
        } else {
            self.below(2 * most) as i64 - most as i64
        };
        self.say(format_args!("the clock of node {node} is {off} ms off"));
        self.nodes[node].off_ms.store(off, Ordering::Relaxed);
    }

    fn end_trouble(&mut self) {
        self.say(format_args!("peace"));
        let mut world = self.world.lock().unwrap();
        world.cut.clear();
        world.denied.clear();
        world.slow.clear();
        world.unread.clear();
    }

    fn restart(&mut self, node: usize) {
        self.still_until_ms[node] = 0;
        self.nodes[node].restart(&mut self.executor);
    }

    /// A second passes.
    fn step(&mut self) {
        let now = self.now() + 1_000;
        self.executor.run_until(&self.world, now);
        for index in 0..3 {
            if self.in_trouble(index) {
                self.trouble_ms[index] = now;
            }
            if self.executor.stands_still(index) {
                if now < self.still_until_ms[index] {
                    continue;
                }
                self.say(format_args!("node {index} goes on"));
                self.executor.go_on(index);
            }
            self.step_node(index, now);
        }
        self.finish_reads();
        self.finish_checks();
        self.check_that_nodes_agree();
    }

    fn step_node(&mut self, index: usize, now: u64) {
        self.nodes[index].note_incident();
        self.check_what_is_known(index);
        let told = self.nodes[index].incident_since_ms;
        if told.is_some_and(|since| now - since >= ACKNOWLEDGED_MS) {
            self.say(format_args!("the operator restarts node {index}: incident"));
            self.restart(index);
        }
        if self.below(20) == 0 {
            let call = self.executor.call(index, now, self.nodes[index].probe([0; 32], None));
            self.checks.push((index, call));
        }
        self.check_that_no_id_comes_back(index);
        self.seeds += 1;
        let (node, executor) = (&self.nodes[index], &mut self.executor);
        self.servers[index].poll(node, executor, now, self.seeds);
        let mismatches = self.servers[index].mismatches;
        assert!(mismatches < 2, "seed {}: Status and Encrypt disagree twice in a row", self.seed);
        if self.below(5) == 0 {
            self.write(index);
        }
        if self.below(5) == 0 {
            self.read(index, now);
        }
    }

    fn in_trouble(&self, node: usize) -> bool {
        let world = self.world.lock().unwrap();
        let lists = [&world.cut, &world.denied, &world.slow, &world.unread];
        lists.iter().any(|list| list.contains(&node)) || self.executor.stands_still(node)
    }

    /// Holds what a node knows and says against what it was told.
    fn check_what_is_known(&self, node: usize) {
        let context = format!("seed {}, {} ms, node {node}", self.seed, self.now());
        let mut told = std::mem::take(&mut self.world.lock().unwrap().told[node]);
        told.check(&self.nodes[node], &context);
        self.world.lock().unwrap().told[node] = told;
    }

    /// Whether `node` has had peace long enough to know all there is to know.
    fn settled(&self, node: usize) -> bool {
        let now = self.now();
        let since = self.trouble_ms[node].max(self.nodes[node].started_ms).max(self.upheaval_ms);
        // A key that was replaced while a node was away looks like a rolled-back one to it.
        let away_or_replaced = self.replaced_ms.last().map(|at| at.max(&self.trouble_ms[node]));
        let noticed = away_or_replaced.is_none_or(|at| now - at > NOTICED_MS);
        now - since > SETTLED_MS && noticed && self.nodes[node].incident_since_ms.is_none()
    }

    fn write(&mut self, server: usize) {
        if let Some(stored) = self.servers[server].write(self.now())
            && self.etcd.last().is_none_or(|last| last.number != stored.number)
        {
            self.etcd.push(stored);
        }
    }

    /// Begins to read an object.
    fn read(&mut self, server: usize, now: u64) {
        if self.etcd.is_empty() {
            return;
        }
        let stored = self.etcd[self.below(self.etcd.len() as u64) as usize].clone();
        if self.servers[server].knows(&stored) {
            return;
        }
        let call = self.nodes[server].decrypt(stored.sealed.clone());
        self.reads.push((server, stored, self.executor.call(server, now, call)));
    }

    /// What one node wrote every node reads, unless the keeper itself lost the version.
    fn finish_reads(&mut self) {
        for (server, stored, call) in std::mem::take(&mut self.reads) {
            match call.progress() {
                Progress::Waiting(call) => self.reads.push((server, stored, call)),
                Progress::Lost => (),
                Progress::Answered(Ok(plaintext)) => {
                    assert!(
                        plaintext.expose() == stored.seed,
                        "seed {}: a wrong plaintext",
                        self.seed
                    );
                    self.servers[server].learn(&stored);
                }
                Progress::Answered(Err(error)) => assert!(
                    !self.is_readable(&stored) || !self.settled(server),
                    "seed {}, {} ms: node {server} cannot read what was written at {} ms with version {} (material {}): {error}",
                    self.seed,
                    self.now(),
                    stored.written_ms,
                    stored.version,
                    stored.material,
                ),
            }
        }
    }

    fn is_readable(&self, stored: &Stored) -> bool {
        // While replicas disagree about which key stands under the name, nobody can tell which one
        // a wrap met. That is an incident, and --accept-key-id reads what was written then.
        let in_doubt = |at: &u64| (*at..at + LAG_MS + 2_000 + CALL_MS).contains(&stored.written_ms);
        let span_ms = SETTLED_MS + CALL_MS;
        let world = self.world.lock().unwrap();
        !self.replaced_ms.iter().any(in_doubt)
            && world.read_throughout(stored.version, stored.material, span_ms)
    }

    /// No id stands for two keys.
    fn finish_checks(&mut self) {
        for (node, call) in std::mem::take(&mut self.checks) {
            match call.progress() {
                Progress::Waiting(call) => self.checks.push((node, call)),
                Progress::Lost | Progress::Answered(Err(_)) => (),
                Progress::Answered(Ok((status, answer))) => {
                    let Some(answer) = answer.filter(|_| self.settled(node)) else { continue };
                    if answer.key_id != status.key_id {
                        continue;
                    }
                    let (_, material) = written_with(&answer.ciphertext);
                    let id = status.key_id.as_str().to_owned();
                    let before = *self.ids.entry(id.clone()).or_insert(material);
                    assert_eq!(before, material, "seed {}: {id} stands for two keys", self.seed);
                }
            }
        }
    }

    /// A node's key id does not go back, whatever the clocks do. (An upheaval, a restart or a time
    /// of trouble begins anew.)
    fn check_that_no_id_comes_back(&mut self, node: usize) {
        if !self.settled(node) {
            self.told[node].clear();
            return;
        }
        let Ok(status) = self.nodes[node].status() else { return };
        let id = status.key_id.as_str().to_owned();
        let told = &mut self.told[node];
        if told.last() != Some(&id) {
            assert!(!told.contains(&id), "seed {}: node {node} went back to {id}", self.seed);
            told.push(id);
        }
    }

    /// Nodes switch together: but for the moment of a takeover, all write with one version.
    fn check_that_nodes_agree(&self) {
        let now = self.now();
        let near_a_takeover = {
            let world = self.world.lock().unwrap();
            let wall = world.wall_ms();
            world.truth().versions.values().any(|(born, _)| {
                let takeover = born * 1_000 + ROTATION_DELAY.as_millis() as i64;
                wall.abs_diff(takeover) <= CLOCK_ERROR_MS
            })
        };
        if near_a_takeover {
            return;
        }
        let mut ids: Vec<_> = (0..3)
            .filter(|node| self.settled(*node))
            .filter_map(|node| self.nodes[node].status().ok())
            .map(|status| status.key_id)
            .collect();
        ids.dedup();
        assert!(ids.len() <= 1, "seed {}, {now} ms: nodes write under {ids:?}", self.seed);
    }

    /// After the last fault all heals within the stated time: incidents once they were
    /// acknowledged, everything else by itself.
    fn check_that_all_is_well(&self) {
        for (index, (node, server)) in self.nodes.iter().zip(&self.servers).enumerate() {
            let status = node.status();
            assert!(status.is_ok(), "seed {}: node {index} at the end: {status:?}", self.seed);
            assert!(
                server.healthy,
                "seed {}: API server {index} is not well at the end",
                self.seed
            );
            assert!(server.write(self.now()).is_some(), "seed {}: it cannot write", self.seed);
        }
    }
}
