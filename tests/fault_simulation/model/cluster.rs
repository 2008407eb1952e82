//! The state of the cluster, and its faults.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{sync::Notify, time::Instant};

use super::{
    NODES,
    auth::Auth,
    measures::Measures,
    proxy::Page,
    transit::{Reply, Transit, refusal},
};
use crate::{chance::Chance, clock::wall_ms, journal::Journal};

/// How a node answers to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Serving,
    /// Its process has ended: connections are reset and refused.
    Dead,
    /// It accepts connections and never answers.
    Stalled,
    /// It never accepts a connection.
    Unreachable,
}

/// What standbys do with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standbys {
    /// Forward them to the leader (Vault Community).
    Forward,
    /// Redirect to the leader.
    Redirect,
    /// Answer requests that change nothing, and forward the others to the leader (OpenBao from
    /// 2.5 on).
    Serve,
}

/// What happens to a request on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Request and answer arrive.
    Good,
    /// The connection ends before it is carried out.
    Reset,
    /// The connection ends after it was carried out.
    ResetAfter,
    /// The answer ends half way.
    HalfBody,
    /// A proxy answers.
    Proxy,
}

#[derive(Clone, Copy)]
pub struct Node {
    pub condition: Condition,
    pub sealed: bool,
    /// The time after a rotation until the node knows it.
    pub lag: Duration,
    /// The state of the cluster has not reached it.
    pub behind: bool,
    /// The newest version that it will ever know, as a leader too.
    pub knows: Option<u32>,
    /// It is a server of another cluster.
    pub foreign: bool,
    /// A proxy in front of it answers some requests itself.
    pub proxy: Option<Page>,
    /// The time from which its name leads to the next node.
    pub moves_at: Option<Instant>,
}

impl Node {
    fn can_lead(self) -> bool {
        self.condition == Condition::Serving && !self.sealed && !self.foreign
    }
}

pub struct State {
    pub nodes: [Node; NODES],
    pub leader: Option<usize>,
    last_leader: usize,
    election_ends: Option<Instant>,
    pub standbys: Standbys,
    /// A load balancer stands in front: any node may answer for any address.
    pub balanced: bool,
    /// Answers name the state that they come from (OpenBao from 2.7 on).
    pub tells_index: bool,
    pub transit: Transit,
    pub auth: Auth,
    rotated: Instant,
    pub mount_gone: bool,
    /// A quota is used up. The answer may have a number of seconds.
    pub quota: Option<Option<u64>>,
    pub flaky: bool,
    pub slow: bool,
    /// Until then clients may still think that batches are refused.
    pub singly_until: Instant,
    /// How far the wall clock of each plugin's node is ahead, in milliseconds.
    pub clock_steps_ms: [i64; NODES],
    pub measures: Measures,
    /// What plugins have met, and how often.
    pub met: BTreeMap<&'static str, u64>,
    chance: Chance,
}

pub struct Cluster {
    pub seed: u64,
    state: Mutex<State>,
    /// The plugins ask whether the server has a licence, and it has one.
    pub licensed: bool,
    /// Notified when a node may answer in another way than before. It wakes in order; channels do
    /// not.
    conditions: Notify,
    pub journal: Arc<Journal>,
}

impl Cluster {
    pub fn new(seed: u64, journal: Arc<Journal>) -> Self {
        let mut chance = Chance::new(seed);
        let ttl = 20 + chance.below(40);
        let mut auth = Auth::new(Duration::from_secs(ttl), Duration::from_secs(ttl * 4));
        auth.names_dead_tokens = chance.once_in(2);
        let node = Node {
            condition: Condition::Serving,
            sealed: false,
            lag: Duration::ZERO,
            behind: false,
            knows: None,
            foreign: false,
            proxy: None,
            moves_at: None,
        };
        let mut transit = Transit::default();
        transit.rotate(wall_ms(journal.started()) / 1_000);
        use Standbys::{Forward, Redirect, Serve};
        let standbys = [Forward, Redirect, Serve, Serve];
        let standbys = standbys[chance.below(4) as usize];
        let licensed = chance.once_in(4);
        let state = State {
            nodes: [node; NODES],
            leader: Some(0),
            last_leader: 0,
            election_ends: None,
            standbys,
            balanced: standbys != Redirect && chance.once_in(2),
            tells_index: chance.once_in(2),
            transit,
            auth,
            rotated: Instant::now(),
            mount_gone: false,
            quota: None,
            flaky: false,
            slow: false,
            singly_until: Instant::now(),
            clock_steps_ms: [0; NODES],
            measures: Measures::default(),
            met: BTreeMap::new(),
            chance,
        };
        journal.say(format_args!(
            "standbys {standbys:?}, balanced {}, index {}, licensed {licensed}, tokens live for {ttl} s",
            state.balanced, state.tells_index
        ));
        Self { seed, state: Mutex::new(state), licensed, conditions: Notify::new(), journal }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_condition(&self, node: usize, condition: Condition) {
        self.state().nodes[node].condition = condition;
        self.conditions.notify_waiters();
    }

    /// Waits until the condition of `node` fulfils `ready`, and returns it.
    pub async fn met(&self, node: usize, ready: impl Fn(Condition) -> bool) -> Condition {
        loop {
            let changed = self.conditions.notified();
            let condition = self.state().nodes[node].condition;
            if ready(condition) {
                return condition;
            }
            changed.await;
        }
    }

    /// Elects a new leader if one is due. Call this often.
    pub fn elect(&self) {
        let mut state = self.state();
        let now = Instant::now();
        if let Some(leader) = state.leader
            && !state.nodes[leader].can_lead()
        {
            self.journal.say(format_args!("node {leader} leads no more"));
            (state.leader, state.last_leader) = (None, leader);
            let wait = Duration::from_millis(1_000 + state.chance.below(10_000));
            state.election_ends = Some(now + wait);
        }
        let able: Vec<_> = (0..NODES).filter(|node| state.nodes[*node].can_lead()).collect();
        if state.leader.is_none()
            && state.election_ends.is_none_or(|ends| ends <= now)
            && able.len() * 2 > NODES
        {
            let leader = able[state.chance.below(able.len() as u64) as usize];
            self.journal.say(format_args!("node {leader} leads"));
            (state.leader, state.election_ends) = (Some(leader), None);
        }
    }
}

impl State {
    /// Makes a new version. The other nodes know it later.
    pub fn rotate(&mut self, wall_secs: i64, lags: [Duration; NODES]) {
        self.transit.rotate(wall_secs);
        self.rotated = Instant::now();
        for (node, lag) in self.nodes.iter_mut().zip(lags) {
            node.lag = lag;
        }
    }

    /// Returns whether other nodes can replace a stale node. They cannot if the leader answers
    /// for all, or if the answering node is unknown.
    pub fn can_be_stale(&self) -> bool {
        self.standbys == Standbys::Serve && !self.balanced
    }

    /// Returns whether each address leads to one server that the client can identify.
    pub fn has_plain_addresses(&self) -> bool {
        !self.balanced
    }

    /// Returns the node that `name` leads to now.
    pub fn resolved(&self, name: usize) -> usize {
        let moved = self.nodes[name].moves_at.is_some_and(|at| at <= Instant::now());
        if moved { (name + 1) % NODES } else { name }
    }

    /// Counts an answer of `node` if the node lacks a version that it should know by now.
    pub fn note_answer(&mut self, node: usize) {
        let latest = self.transit.latest();
        if self.nodes[node].knows.is_some_and(|known| known < latest) {
            self.meet("stale");
        }
    }

    pub fn meet(&mut self, what: &'static str) {
        *self.met.entry(what).or_default() += 1;
    }

    /// Returns the versions that `node` knows.
    pub fn known(&self, node: usize) -> u32 {
        let latest = self.transit.latest();
        let lags = Some(node) != self.leader && self.rotated.elapsed() < self.nodes[node].lag;
        let known = if lags { latest - 1 } else { latest };
        self.nodes[node].knows.unwrap_or(u32::MAX).min(known)
    }

    /// What happens to a request on the wire.
    pub fn wire(&self, path: &str, draw: &mut Chance) -> Wire {
        if !self.flaky {
            return Wire::Good;
        }
        // An unwrap is rare, and its answer comes only once.
        match draw.below(if path == "sys/wrapping/unwrap" { 8 } else { 16 }) {
            0 => Wire::Reset,
            1 => Wire::ResetAfter,
            2 => Wire::HalfBody,
            3 => Wire::Proxy,
            _ => Wire::Good,
        }
    }

    /// Returns the node to which a connection to the address of `node` leads. A balancer leaves
    /// out dead nodes.
    pub fn behind(&self, node: usize, draw: &mut Chance) -> usize {
        let alive = |index: &usize| self.nodes[*index].condition != Condition::Dead;
        let alive: Vec<_> = (0..NODES).filter(alive).collect();
        if !self.balanced || alive.is_empty() {
            return node;
        }
        alive[draw.below(alive.len() as u64) as usize]
    }

    /// Returns the time that a request takes to the node.
    pub fn latency(&self, draw: &mut Chance) -> Duration {
        let most = if self.slow { 1_200 } else { 3 };
        Duration::from_micros(200 + draw.below(most * 1_000))
    }

    /// Returns the node that answers a request to `node`: another node if `node` forwards it.
    /// Otherwise returns the refusal and the target of the redirection.
    pub fn server_of(
        &self,
        node: usize,
        path: &str,
        index: Option<u32>,
        draw: &mut Chance,
    ) -> Result<usize, (Reply, Option<usize>)> {
        if self.nodes[node].sealed {
            return Err((refusal(503, "Vault is sealed"), None));
        }
        if self.leader == Some(node) {
            return Ok(node);
        }
        let reads = path.starts_with("transit/");
        match (self.standbys, self.leader) {
            (Standbys::Serve, leader) if reads => {
                let unmet = index.is_some_and(|index| self.known(node) < index);
                match leader {
                    _ if !unmet && !self.nodes[node].behind => Ok(node),
                    Some(leader) if !self.nodes[node].behind => Ok(leader),
                    _ => Err((self.not_caught_up(), None)),
                }
            }
            (Standbys::Forward | Standbys::Serve, Some(leader)) => Ok(leader),
            (Standbys::Forward, None) if draw.once_in(4) => {
                let text = if draw.once_in(2) {
                    "local node not active but active cluster node not found"
                } else {
                    "error during forwarding RPC request"
                };
                Err((refusal(500, text), None))
            }
            (Standbys::Forward, None) => {
                Err((refusal(503, "no active Vault instance found"), None))
            }
            // To the dead leader, until there is another one.
            (Standbys::Redirect | Standbys::Serve, leader) => {
                Err(((307, Value::Null), Some(leader.unwrap_or(self.last_leader))))
            }
        }
    }

    fn not_caught_up(&self) -> Reply {
        (if self.tells_index { 429 } else { 412 }, json!({"errors": []}))
    }
}
