//! What the provider of a node says of itself.

use std::{collections::HashMap, time::Duration};

use vault_kube_kms::domain::{key::KekVersion, time::UnixTime, view::VERSIONS_MAX};

/// How long a node must have written with its version before the version before is certainly not
/// written any more. An API server asks Status once a minute, and may go on with its seed for 3
/// minutes after that.
pub const SETTLED: Duration = Duration::from_mins(10);

/// The use of a key version on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// New seeds are wrapped with it.
    Writes,
    /// It is known, and writes later.
    Waits,
    /// It unwraps only.
    Reads,
    /// The keeper does not unwrap with it any more.
    Archived,
}

/// A version of the KEK, as one node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVersion {
    /// The number of the version.
    pub version: KekVersion,
    /// The `key_id` of the version.
    pub key_id: String,
    /// The SHA-256 of the `key_id`, as the metrics of API servers show it.
    pub hash: String,
    /// Its use on this node.
    pub role: Role,
    /// When the keeper made it.
    pub created: Option<UnixTime>,
    /// When it writes from.
    pub writes_from: Option<UnixTime>,
}

/// Why a node does not work as it should, in the provider's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whether no Encrypt succeeds. Otherwise the node still writes.
    pub fails: bool,
    /// The provider's stable code.
    pub code: String,
    /// What failed, and why.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

/// The state of the provider of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// A random text of the process. Empty for a provider of an earlier release.
    pub process: String,
    /// The time on the node.
    pub now: UnixTime,
    /// How far the clock of the node is ahead of this machine's clock, in seconds. `None` for a
    /// saved state.
    pub ahead_s: Option<i64>,
    /// Why it is not healthy.
    pub fault: Option<Fault>,
    /// The versions that the node knows, newest first: at most [`VERSIONS_MAX`].
    pub versions: Vec<KeyVersion>,
    /// Seconds for which this process has written with its version. `None` when no version may
    /// write, or for a provider of an earlier release.
    pub writing_s: Option<u64>,
    /// Seconds since the node last read the key at its keeper.
    pub key_read_s_ago: Option<u64>,
}

impl Node {
    /// Returns the version that writes, or `None` when nothing may be written.
    #[must_use]
    pub fn writes(&self) -> Option<&KeyVersion> {
        self.versions.iter().find(|version| version.role == Role::Writes)
    }

    /// Returns the newest version that the node knows and can use.
    #[must_use]
    pub fn newest(&self) -> Option<&KeyVersion> {
        self.usable().max_by_key(|version| version.version)
    }

    /// Returns the lowest version that the keeper unwraps with. `None` when the node does not know
    /// it: before its first read, and for a key with more versions than a state shows.
    #[must_use]
    pub fn lowest_usable(&self) -> Option<KekVersion> {
        if self.versions.len() >= VERSIONS_MAX {
            return None;
        }
        self.usable().map(|version| version.version).min()
    }

    /// Returns the next version that writes, and the time until then. The time is zero when the node
    /// still proves the version.
    #[must_use]
    pub fn next(&self) -> Option<(KekVersion, Duration)> {
        let waiting = self.versions.iter().filter(|version| version.role == Role::Waits);
        let next = waiting.min_by_key(|version| version.version)?;
        let wait = next.writes_from.map_or(Duration::ZERO, |from| from.since(self.now));
        Some((next.version, wait))
    }

    /// Returns the names of two `nodes` whose states come from one process.
    #[must_use]
    pub fn same_process<'a>(
        nodes: impl IntoIterator<Item = (&'a str, &'a Self)>,
    ) -> Option<(&'a str, &'a str)> {
        let mut seen = HashMap::new();
        let mut known = nodes.into_iter().filter(|(_, node)| !node.process.is_empty());
        known.find_map(|(name, node)| Some((seen.insert(&node.process, name)?, name)))
    }

    fn usable(&self) -> impl Iterator<Item = &KeyVersion> {
        self.versions.iter().filter(|version| version.role != Role::Archived)
    }
}
