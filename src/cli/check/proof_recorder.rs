//! A telemetry sink that keeps the results of proofs for `check`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{
    domain::{error::KmsError, key::KekVersion},
    ports::telemetry::{Event, Telemetry},
};

/// The versions that were tried, each with the error of its proof. `None` means that the proof
/// passed.
type Proofs = Vec<(KekVersion, Option<KmsError>)>;

/// Keeps the results of proofs and discards all other events.
#[derive(Debug, Default)]
pub(super) struct ProofRecorder(Mutex<Proofs>);

impl ProofRecorder {
    /// Returns the results so far.
    pub(super) fn proofs(&self) -> MutexGuard<'_, Proofs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Telemetry for ProofRecorder {
    fn record(&self, event: Event<'_>) {
        if let Event::Proven { version, error } = event {
            self.proofs().push((version, error.cloned()));
        }
    }
}
