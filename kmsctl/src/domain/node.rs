//! What the judgement needs to know of one provider's state.

use std::time::Duration;

use vault_kube_kms::domain::{key::KekVersion, time::UnixTime, view::VERSIONS_MAX};

use super::rotation;
pub use super::rotation::Role;

/// A key version on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeVersion {
    /// The number of the version.
    pub version: KekVersion,
    /// Its key id.
    pub key_id: String,
    /// Its role.
    pub role: Role,
}

/// The state of the provider of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The name that the operator gave.
    pub name: String,
    /// The time of the state.
    pub at: UnixTime,
    /// The code of its problem. `None` when it is healthy.
    pub fault: Option<String>,
    /// The newest versions that the node knows.
    pub versions: Vec<NodeVersion>,
    /// How long the node has written with its version. `None` when it does not say that.
    pub writing: Option<Duration>,
    /// The next version, and the time until it writes.
    pub takeover: Option<(KekVersion, Duration)>,
}

impl Node {
    /// Takes what is needed from the state of the node `name`.
    #[must_use]
    pub fn of(name: &str, state: &rotation::Node) -> Self {
        let next = state.versions.iter().filter(|version| version.role == Role::Waits);
        let next = next.min_by_key(|version| version.version);
        Self {
            name: name.to_owned(),
            at: state.now,
            fault: state.fault.as_ref().map(|fault| fault.code.clone()),
            versions: state
                .versions
                .iter()
                .filter_map(|known| {
                    Some(NodeVersion {
                        version: KekVersion::new(known.version)?,
                        key_id: known.key_id.clone(),
                        role: known.role,
                    })
                })
                .collect(),
            writing: state.writing_s.map(Duration::from_secs),
            takeover: next.and_then(|next| {
                let wait = next.writes_from.map_or(Duration::ZERO, |from| from.since(state.now));
                Some((KekVersion::new(next.version)?, wait))
            }),
        }
    }

    /// Returns the lowest version that the keeper unwraps with. `None` when the node does not know
    /// it: before its first read, and for a key with more versions than a state shows.
    #[must_use]
    pub fn lowest_usable(&self) -> Option<KekVersion> {
        if self.versions.len() >= VERSIONS_MAX {
            return None;
        }
        let usable = self.versions.iter().filter(|version| version.role != Role::Archived);
        usable.map(|version| version.version).min()
    }

    /// Returns the version that writes, or `None` when nothing may be written.
    #[must_use]
    pub fn writer(&self) -> Option<&NodeVersion> {
        self.versions.iter().find(|version| version.role == Role::Writes)
    }
}
