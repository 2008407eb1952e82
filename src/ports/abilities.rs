//! Describes what a keeper can do. The layers around the keeper use it.

/// The maximum number of concurrent calls to any keeper.
const CALLS_MAX: usize = 256;

/// The abilities of a keeper.
///
/// The default is a keeper that takes 8 concurrent calls, has no batches, wraps with the version of
/// the call, and binds associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Abilities {
    /// The number of concurrent calls that the keeper takes, 1 to 256. More calls wait in the
    /// layers.
    pub calls: usize,
    /// The number of unwraps in one call of [`Kek::unwrap_many`](super::kek::Kek::unwrap_many). It
    /// is 1 for a keeper without batches.
    pub batch_max: usize,
    /// Whether the keeper wraps with exactly the version of the call, and its ciphertexts name
    /// their version.
    pub pins_versions: bool,
    /// Whether an unwrap fails when its associated data differs from that of the wrap.
    pub binds: bool,
    /// Whether the keeper itself records each of its requests
    /// ([`Event::KeeperCalled`](super::telemetry::Event::KeeperCalled)). Otherwise a layer records
    /// them.
    pub counts_requests: bool,
}

impl Default for Abilities {
    fn default() -> Self {
        Self { calls: 8, batch_max: 1, pins_versions: true, binds: true, counts_requests: false }
    }
}

impl Abilities {
    /// Sets the number of concurrent calls. Values outside 1 to 256 are set to the nearest limit.
    #[must_use]
    pub fn with_calls(self, calls: usize) -> Self {
        Self { calls: calls.clamp(1, CALLS_MAX), ..self }
    }

    /// Sets the number of unwraps in one call. The value 0 is set to 1.
    #[must_use]
    pub fn with_batches(self, batch_max: usize) -> Self {
        Self { batch_max: batch_max.max(1), ..self }
    }

    /// Declares that the keeper chooses the version of a wrap, or that its ciphertexts do not name
    /// their version. A layer then seals each seed with a key of its own and adds the version.
    #[must_use]
    pub fn without_pinning(self) -> Self {
        Self { pins_versions: false, ..self }
    }

    /// Declares that the keeper ignores associated data or does not accept it. A layer then binds
    /// it.
    #[must_use]
    pub fn without_binding(self) -> Self {
        Self { binds: false, ..self }
    }

    /// Declares that the keeper itself records each of its requests.
    #[must_use]
    pub fn counting_requests(self) -> Self {
        Self { counts_requests: true, ..self }
    }
}
