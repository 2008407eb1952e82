//! Records the events of a plugin.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use vault_kube_kms::ports::telemetry::{BreakerState, Event, Telemetry};

/// Counts events, and keeps the number of waiting unwraps.
#[derive(Debug, Default)]
pub struct Ledger {
    queued: AtomicUsize,
    happened: Mutex<BTreeMap<&'static str, u64>>,
    /// Whether a renewal ends in a panic.
    panics: bool,
}

impl Ledger {
    pub fn new(panics: bool) -> Self {
        Self { panics, ..Self::default() }
    }

    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Returns the number of each event.
    pub fn happened(&self) -> BTreeMap<&'static str, u64> {
        self.happened.lock().unwrap().clone()
    }
}

impl Telemetry for Ledger {
    fn record(&self, event: Event<'_>) {
        let what = match event {
            Event::Queued { depth } => return self.queued.store(depth, Ordering::Relaxed),
            Event::Retried(reason) => reason,
            Event::Breaker { state: BreakerState::Open, .. } => "breaker opened",
            Event::Coalesced => "coalesced",
            Event::LegacyRead => "legacy read",
            Event::Batched { size } if size > 1 => "batched",
            Event::LoggedIn { .. } => "logged in",
            Event::Renewed { .. } => {
                assert!(!self.panics, "planted");
                "renewed"
            }
            Event::SessionFailed { .. } => "session failed",
            _ => return,
        };
        *self.happened.lock().unwrap().entry(what).or_default() += 1;
    }
}
