//! Gauges whose series appear and disappear. Each scrape reads the current state.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry::{KeyValue, metrics::Meter};

use crate::{
    domain::{error::Code, key_id::KeyId, time::UnixTime},
    ports::telemetry::Expiring,
};

/// The key id that writes, and the previous one. Older ids are dropped, so that the page does not
/// grow with each rotation.
#[derive(Debug, Default)]
pub(super) struct KeyIds(Arc<Mutex<Vec<KeyId>>>);

impl KeyIds {
    /// Adds the gauge `vault_kube_kms_key_id_info`, without any series yet.
    pub(super) fn register(meter: &Meter) -> Self {
        let shown = Self::default();
        let ids = Arc::clone(&shown.0);
        // The meter keeps the callback; the handle is not needed.
        let _registered = meter
            .u64_observable_gauge("vault_kube_kms.key_id_info")
            .with_description(
                "1 for the key id that writes; the hash is that of the API server's metrics.",
            )
            .with_callback(move |observer| {
                let ids = ids.lock().unwrap_or_else(PoisonError::into_inner);
                for (value, id) in [1, 0].into_iter().zip(ids.iter()) {
                    observer.observe(value, &[KeyValue::new("key_id_hash", id.hash())]);
                }
            })
            .build();
        shown
    }

    /// Records that `id` writes from now on.
    pub(super) fn writes(&self, id: &KeyId) {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.retain(|known| known != id);
        ids.insert(0, id.clone());
        ids.truncate(2);
    }
}

/// The expiries of what an operator must renew.
#[derive(Debug, Default)]
pub(super) struct Expiries(Arc<Mutex<HashMap<Expiring, UnixTime>>>);

impl Expiries {
    /// Adds the gauge `vault_kube_kms_expiry_timestamp_seconds`, without any series yet.
    pub(super) fn register(meter: &Meter) -> Self {
        let shown = Self::default();
        let known = Arc::clone(&shown.0);
        let _registered = meter
            .i64_observable_gauge("vault_kube_kms.expiry_timestamp")
            .with_unit("s")
            .with_description("When it expires, in Unix time; absent while that is unknown.")
            .with_callback(move |observer| {
                for (what, at) in known.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    observer.observe(at.secs(), &[KeyValue::new("what", what.label)]);
                }
            })
            .build();
        shown
    }

    /// Records that `what` expires at `at`. `None` removes the series, because the time is unknown.
    pub(super) fn set(&self, what: Expiring, at: Option<UnixTime>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _before = match at {
            Some(at) => known.insert(what, at),
            None => known.remove(&what),
        };
    }
}

/// The stable code of the error that keeps `Status` from being ok.
#[derive(Debug, Default)]
pub(super) struct Problem(Arc<Mutex<Option<Code>>>);

impl Problem {
    /// Adds the gauge `vault_kube_kms_problem`, without any series yet.
    pub(super) fn register(meter: &Meter) -> Self {
        let shown = Self::default();
        let current = Arc::clone(&shown.0);
        let _registered = meter
            .u64_observable_gauge("vault_kube_kms.problem")
            .with_description("1 for the stable code of the error that keeps Status from being ok.")
            .with_callback(move |observer| {
                if let Some(code) = *current.lock().unwrap_or_else(PoisonError::into_inner) {
                    observer.observe(1, &[KeyValue::new("code", code.as_str())]);
                }
            })
            .build();
        shown
    }

    /// Sets the code of the current problem. `None` means that there is no problem.
    pub(super) fn set(&self, code: Option<Code>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = code;
    }
}
