//! A listener that writes down what a check wants to know.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    domain::{error::KmsError, key::KekVersion},
    ports::telemetry::{Event, Telemetry},
};

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// How long the token is good for, once there was one; `None` inside is for ever.
    #[expect(clippy::option_option, reason = "outer: whether there was one")]
    pub(super) logged_in: Option<Option<Duration>>,
    /// Why there is no token.
    pub(super) no_session: Option<KmsError>,
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
        let mut heard = self.read();
        match event {
            Event::LoggedIn { ttl } => heard.logged_in = Some(ttl),
            Event::SessionFailed { error, .. } => heard.no_session = Some(error.clone()),
            Event::Proven { version, error } => heard.proofs.push((version, error.cloned())),
            _ => (),
        }
    }
}
