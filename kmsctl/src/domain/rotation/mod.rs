//! Where a rotation of the KEK is: what the nodes and the API servers say, and what follows from it.

mod judgement;

#[cfg(test)]
pub(crate) mod tests;

use vault_kube_kms::domain::time::UnixTime;

use super::{
    needs::doubt,
    node::{KeyVersion, Node},
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

/// The objects that are not shown to be stored under the newest version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The objects under an older version, of any plugin, and the objects of vault-kube-kms under
    /// another key id.
    pub older: u64,
    /// The objects for which it is not known which version they need, such as unreadable ones.
    pub unknown: u64,
}

impl Left {
    /// Returns which objects of `tally` are left when `newest` is the newest version.
    #[must_use]
    pub fn of(tally: &Tally, newest: &KeyVersion) -> Self {
        let mut left = Self::default();
        for (_, group, count) in tally.groups() {
            let has_other_id = group.state == State::Ours && group.key_id != newest.key_id;
            let is_older = group.claim.as_ref().is_some_and(|of| of.version < newest.version);
            if doubt(group).is_some() {
                left.unknown = left.unknown.saturating_add(count.objects);
            } else if has_other_id || is_older {
                left.older = left.older.saturating_add(count.objects);
            }
        }
        left
    }
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
    /// The objects that are left under older versions, when they were counted.
    pub left: Option<Left>,
    /// The time on this machine.
    pub now: UnixTime,
}

impl Facts {
    /// Returns the newest version that a node knows.
    #[must_use]
    pub fn newest(&self) -> Option<&KeyVersion> {
        let known = self.nodes.iter().filter_map(|node| node.answer.as_ref().ok()?.newest());
        known.max_by_key(|version| version.version)
    }
}
