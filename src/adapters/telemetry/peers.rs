//! A counter of calls by the uid of the caller's process.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use opentelemetry::{
    KeyValue, StringValue,
    metrics::{Counter, Meter},
};

use super::instruments::counter;

/// How many uids have a series of their own. An API server and an operator need two. All other uids
/// share one series.
const UIDS_MAX: usize = 8;

/// The labels of a series.
type Labels = [KeyValue; 2];

/// The labels of the calls of one uid. They are kept, so that a call does not build them.
#[derive(Debug)]
struct Series {
    succeeded: Labels,
    failed: Labels,
}

/// Counts calls by uid and outcome.
#[derive(Debug)]
pub(super) struct Peers {
    calls: Counter<u64>,
    uids: Mutex<BTreeMap<u32, Series>>,
    others: Series,
}

impl Peers {
    pub(super) fn new(meter: &Meter) -> Self {
        let calls = counter(meter, "peer_calls", "Calls by the uid of the caller's process.");
        Self { calls, uids: Mutex::default(), others: Series::of(&"other".into()) }
    }

    /// Counts one call of a process that runs as `uid`.
    pub(super) fn called(&self, uid: u32, succeeded: bool) {
        let mut uids = self.uids.lock().unwrap_or_else(PoisonError::into_inner);
        if uids.len() < UIDS_MAX {
            let _known = uids.entry(uid).or_insert_with(|| Series::of(&uid.to_string().into()));
        }
        let series = uids.get(&uid).unwrap_or(&self.others);
        self.calls.add(1, if succeeded { &series.succeeded } else { &series.failed });
    }
}

impl Series {
    fn of(name: &StringValue) -> Self {
        let of = |outcome: &'static str| {
            [KeyValue::new("uid", name.clone()), KeyValue::new("outcome", outcome)]
        };
        Self { succeeded: of("ok"), failed: of("failed") }
    }
}
