//! A listener that writes down what a check wants to know.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{
    domain::{error::KmsError, key::KekVersion},
    ports::telemetry::{Event, Telemetry},
};

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The versions that were proven, each with why it failed.
    pub(super) proofs: Vec<(KekVersion, Option<KmsError>)>,
}

#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<Heard>);

impl Notes {
    pub(super) fn read(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Telemetry for Notes {
    fn record(&self, event: Event<'_>) {
        if let Event::Proven { version, error } = event {
            self.read().proofs.push((version, error.cloned()));
        }
    }
}
