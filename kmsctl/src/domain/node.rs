//! What one provider says about its key, from its `/statusz`.

use std::time::Duration;

use vault_kube_kms::domain::key::KekVersion;

/// The role of a key version on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// New objects are encrypted with it.
    Writes,
    /// It will write.
    Waits,
    /// It only reads.
    Reads,
    /// The keeper no longer unwraps with it.
    Archived,
}

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
    /// The URL or the file that the state is from.
    pub name: String,
    /// The time of the state, in RFC 3339.
    pub at: String,
    /// `healthy`, `ailing` or `failing`, and the code of the problem.
    pub state: String,
    /// The newest versions that the node knows.
    pub versions: Vec<NodeVersion>,
    /// How long the node has written with its version. `None` when it does not say that.
    pub writing: Option<Duration>,
    /// The next version, and the time until it writes.
    pub takeover: Option<(KekVersion, Duration)>,
}

impl Node {
    /// Returns the version that writes, or `None` when nothing may be written.
    #[must_use]
    pub fn writer(&self) -> Option<&NodeVersion> {
        self.versions.iter().find(|version| version.role == Role::Writes)
    }
}
