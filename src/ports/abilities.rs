//! What a keeper can do, so that the layers around it follow.

/// The most calls that any keeper is given at once.
const CALLS_MAX: usize = 256;

/// What a keeper can do.
///
/// The default is a keeper that takes 8 calls at once, has no batches, wraps with the version it is
/// asked for, and binds associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Abilities {
    /// Calls that it takes at once, 1 to 256. Further ones wait in the layers.
    pub calls: usize,
    /// Unwraps that it takes in one call of [`Kek::unwrap_many`](super::kek::Kek::unwrap_many); 1
    /// where it has no batches.
    pub batch_max: usize,
    /// Whether it wraps with exactly the version that it is asked for, and a ciphertext of its own
    /// names its version.
    pub pins_versions: bool,
    /// Whether an unwrap under other associated data than the wrap's fails.
    pub binds: bool,
    /// Whether it records each of its requests by itself
    /// ([`Event::KeeperCalled`](super::telemetry::Event::KeeperCalled)).
    pub counts_requests: bool,
}

impl Default for Abilities {
    fn default() -> Self {
        Self { calls: 8, batch_max: 1, pins_versions: true, binds: true, counts_requests: false }
    }
}

impl Abilities {
    /// Sets the number of calls that it takes at once, within 1 to 256.
    #[must_use]
    pub fn with_calls(self, calls: usize) -> Self {
        Self { calls: calls.clamp(1, CALLS_MAX), ..self }
    }

    /// Sets the number of unwraps that it takes in one call, at least 1.
    #[must_use]
    pub fn with_batches(self, batch_max: usize) -> Self {
        Self { batch_max: batch_max.max(1), ..self }
    }

    /// Says that the keeper chooses the version of a wrap, or that its ciphertexts name none. A layer
    /// then seals each seed with a key of its own and names the version.
    #[must_use]
    pub fn without_pinning(self) -> Self {
        Self { pins_versions: false, ..self }
    }

    /// Says that the keeper ignores associated data, or takes none. A layer then binds it.
    #[must_use]
    pub fn without_binding(self) -> Self {
        Self { binds: false, ..self }
    }

    /// Says that the keeper records each of its requests by itself.
    #[must_use]
    pub fn counting_requests(self) -> Self {
        Self { counts_requests: true, ..self }
    }
}
