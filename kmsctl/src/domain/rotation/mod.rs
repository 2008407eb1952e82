//! Where a rotation of the KEK is: what the nodes and the API servers say, and what follows from it.

mod judgement;

#[cfg(test)]
pub(crate) mod tests;

use vault_kube_kms::domain::time::UnixTime;

use super::{
    node::Node,
    problem::Problem,
    tally::{State, Tally},
};

pub use judgement::{ApiServerRow, Finding, NodeRow, Phase, View, offset};

/// The longest time between two reads of the key by a healthy provider, in seconds, and some slack.
pub const READ_INTERVAL_S: u64 = 20;

/// The longest time between two calls of Status by an API server, in seconds.
pub const STATUS_INTERVAL_S: u64 = 60;

/// The age of the last Status, in seconds, after which an API server does not reach its provider. An
/// API server stops writing 180 s after the last Status with success.
pub const STATUS_MISSED_S: u64 = 150;

/// The difference between two clocks, in seconds, from which it is reported.
pub const CLOCK_OFF_S: u64 = 5;

/// The last use of one key id by an API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The provider's name in the `EncryptionConfiguration`.
    pub provider: String,
    /// The SHA-256 of the key id.
    pub hash: String,
    /// When.
    pub at: UnixTime,
}

/// What an API server's metrics say about its KMS providers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiServer {
    /// The time at the API server.
    pub now: UnixTime,
    /// What tells this process from other API servers: its identity and the time of its start.
    pub process: Option<String>,
    /// The last write of an object under each key id.
    pub written: Vec<Use>,
    /// The last Status with each key id.
    pub told: Vec<Use>,
    /// Seeds in memory, for each provider.
    pub seeds: Vec<(String, u64)>,
}

/// A source and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked<T> {
    /// The name of the source for people.
    pub name: String,
    /// The answer, or why there is none.
    pub answer: Result<T, Problem>,
}

/// Returns the number of objects of vault-kube-kms that are stored under another id than `key_id`.
#[must_use]
pub fn left(tally: &Tally, key_id: &str) -> u64 {
    let old =
        tally.groups().filter(|(_, group, _)| group.state == State::Ours && group.key_id != key_id);
    old.map(|(_, _, count)| count.objects).fold(0, u64::saturating_add)
}

/// All that was asked at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The nodes.
    pub nodes: Vec<Asked<Node>>,
    /// The API servers. Empty when none is to be asked.
    pub api_servers: Vec<Asked<ApiServer>>,
    /// The version that must be reached, when the operator named one.
    pub expected: Option<u32>,
    /// The objects that are stored under older versions, when they were counted.
    pub left: Option<u64>,
    /// The time on this machine.
    pub now: UnixTime,
}

impl Facts {
    /// Returns the key id of the newest version that a node knows.
    #[must_use]
    pub fn newest_key_id(&self) -> Option<&str> {
        let known = self.nodes.iter().filter_map(|node| node.answer.as_ref().ok()?.newest());
        known.max_by_key(|version| version.version).map(|version| version.key_id.as_str())
    }
}
