//! Who calls: a counter by the uid of the caller's process.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

use super::instruments::counter;

/// How many uids get a series of their own: an API server's, an operator's, and some more. All others
/// are counted together.
const UIDS_MAX: usize = 8;

/// The counter.
#[derive(Debug)]
pub(super) struct Peers {
    calls: Counter<u64>,
    uids: Mutex<BTreeSet<u32>>,
}

impl Peers {
    pub(super) fn new(meter: &Meter) -> Self {
        let calls = counter(meter, "peer_calls", "Calls by the uid of the caller's process.");
        Self { calls, uids: Mutex::default() }
    }

    /// Counts one call of a process of `uid`.
    pub(super) fn called(&self, uid: u32, succeeded: bool) {
        let outcome = if succeeded { "ok" } else { "failed" };
        let name = if self.has_a_series(uid) { uid.to_string() } else { "other".to_owned() };
        self.calls.add(1, &[KeyValue::new("uid", name), KeyValue::new("outcome", outcome)]);
    }

    fn has_a_series(&self, uid: u32) -> bool {
        let mut uids = self.uids.lock().unwrap_or_else(PoisonError::into_inner);
        uids.contains(&uid) || uids.len() < UIDS_MAX && uids.insert(uid)
    }
}
