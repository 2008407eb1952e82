//! Runs all parts step by step, and checks the rules at every step.

mod trouble;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::AtomicI64},
};

use vault_kube_kms::{
    domain::{error::KmsError, secret::Plaintext},
    ports::kms::{Encrypted, StatusAnswer},
};

use crate::{
    api_server::{ApiServer, Stored},
    executor::{Call, Executor, Progress},
    keeper::{World, written_with},
    node::{Node, ROTATION_DELAY},
    plants::Plant,
};

type Read = Call<Result<Plaintext, KmsError>>;
type Check = Call<Result<(StatusAnswer, Option<Encrypted>), KmsError>>;

/// Replicas lag for less than this; the rotation delay covers it and two polls.
const LAG_MS: u64 = 25_000;

/// The duration of the faults, and the time for the recovery.
pub const TROUBLE_MS: u64 = 360_000;
const PEACE_MS: u64 = 240_000;

/// The time after a change at the keeper until every node knows it: the lag, a poll, and a
/// margin.
const SETTLED_MS: u64 = LAG_MS + 20_000;

/// The time limit of a call to a node that is not paused.
const CALL_MS: u64 = 4_000;

/// A rolled-back key is an incident 60 s after every replica shows it.
const NOTICED_MS: u64 = SETTLED_MS + 65_000;

/// An operator restarts a node that has reported an incident for this time.
const ACKNOWLEDGED_MS: u64 = 30_000;

/// How far apart nodes may switch: clocks are left alone up to 2 s, the keeper's has whole seconds
/// and differs between replicas by half a second either way, and steps are one second.
const CLOCK_ERROR_MS: u64 = 5_000;

/// The output of a run.
pub enum ToldTo {
    Nobody,
    /// Prints one line for each event.
    StandardError,
    /// Collects the same lines, and the state of every node after each step.
    Trace(RefCell<Vec<String>>),
}

pub struct ControlPlane {
    seed: u64,
    told_to: ToldTo,
    world: Arc<Mutex<World>>,
    executor: Executor,
    nodes: Vec<Node>,
    servers: Vec<ApiServer>,
    etcd: Vec<Arc<Stored>>,
    /// The running reads, each of a server.
    reads: Vec<(usize, Arc<Stored>, Read)>,
    /// The running Encrypts for [`Self::finish_checks`], each at a node.
    checks: Vec<(usize, Check)>,
    /// The end of each node's pause.
    still_until_ms: [u64; 3],
    seeds: u64,
    /// The key material of each key id so far.
    ids: BTreeMap<String, u64>,
    /// The key ids of each node's Status since it last settled.
    told: Vec<Vec<String>>,
    /// The time of the last change of the key that was not a rotation.
    upheaval_ms: u64,
    /// The time at which another key, or an older state, got the name.
    replaced_ms: Vec<u64>,
    /// The last time at which each node could not reach the keeper, or was denied.
    trouble_ms: Vec<u64>,
}

impl ControlPlane {
    pub fn new(seed: u64, told_to: ToldTo) -> Self {
        Self { told_to, ..Self::with_lag(seed, LAG_MS) }
    }

    pub fn with_lag(seed: u64, most_lag_ms: u64) -> Self {
        Self::of(seed, World::new(seed, most_lag_ms))
    }

    /// Runs with a fault of the program.
    pub fn planted(seed: u64, plant: Plant) -> Self {
        let mut world = World::new(seed, LAG_MS);
        world.plant = Some(plant);
        Self::of(seed, world)
    }

    fn of(seed: u64, world: World) -> Self {
        let world = Arc::new(Mutex::new(world));
        let clocks = (0..3).map(|_| Arc::new(AtomicI64::new(0))).collect::<Vec<_>>();
        let mut executor = Executor::default();
        let nodes = clocks.into_iter().enumerate();
        let nodes =
            nodes.map(|(index, clock)| Node::start(&world, &mut executor, index, clock)).collect();
        Self {
            seed,
            told_to: ToldTo::Nobody,
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

    /// Runs to the end. Returns the trace, which is empty unless a trace was requested.
    pub fn run(mut self) -> Vec<String> {
        while self.now() < TROUBLE_MS {
            self.trouble();
            self.step();
        }
        self.end_trouble();
        while self.now() < TROUBLE_MS + PEACE_MS {
            self.step();
        }
        self.check_that_all_is_well();
        match self.told_to {
            ToldTo::Trace(lines) => lines.into_inner(),
            ToldTo::Nobody | ToldTo::StandardError => Vec::new(),
        }
    }

    fn now(&self) -> u64 {
        self.world.lock().unwrap().now_ms
    }

    fn below(&self, bound: u64) -> u64 {
        self.world.lock().unwrap().chance.below(bound)
    }

    fn say(&self, what: std::fmt::Arguments<'_>) {
        let at = self.now() / 1_000;
        match &self.told_to {
            ToldTo::Nobody => (),
            ToldTo::StandardError => eprintln!("{at:>6} s  {what}"),
            ToldTo::Trace(lines) => lines.borrow_mut().push(format!("{at:>6} s  {what}")),
        }
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
        self.trace();
    }

    /// Adds the state and the running calls to the trace, if there is one.
    fn trace(&self) {
        if let ToldTo::Trace(lines) = &self.told_to {
            let nodes = self.nodes.iter().map(|node| (node.status(), node.view()));
            let nodes = nodes.collect::<Vec<_>>();
            let out = (self.reads.len(), self.checks.len(), self.etcd.len());
            lines.borrow_mut().push(format!("{} ms  {out:?} {nodes:?}", self.now()));
        }
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

    /// Compares the knowledge and the Status of each node with the answers that it got.
    fn check_what_is_known(&self, node: usize) {
        let context = format!("seed {}, {} ms, node {node}", self.seed, self.now());
        let mut told = std::mem::take(&mut self.world.lock().unwrap().told[node]);
        told.check(&self.nodes[node], &context);
        self.world.lock().unwrap().told[node] = told;
    }

    /// Returns whether `node` had no fault for long enough to know every change.
    fn settled(&self, node: usize) -> bool {
        let now = self.now();
        let since = self.trouble_ms[node].max(self.nodes[node].started_ms).max(self.upheaval_ms);
        // A key that was replaced while a node was down looks to it like a rolled-back one.
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
        let plant = self.world.lock().unwrap().plant;
        if self.etcd.is_empty() || plant.is_some_and(|plant| !plant.has_readable_ids()) {
            return;
        }
        let stored = self.etcd[self.below(self.etcd.len() as u64) as usize].clone();
        if self.servers[server].knows(&stored) {
            return;
        }
        let call = self.nodes[server].decrypt(stored.sealed.clone());
        self.reads.push((server, stored, self.executor.call(server, now, call)));
    }

    /// Every node reads the objects of every other node, unless the keeper has lost the version.
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

    /// Checks that no key id has two keys.
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
                    assert_eq!(before, material, "seed {}: {id} has two keys", self.seed);
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

    /// Checks that nodes switch together: except during a take-over, all write with one version.
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
            assert!(
                server.write(self.now()).is_some(),
                "seed {}: an API server cannot write",
                self.seed
            );
        }
    }
}
