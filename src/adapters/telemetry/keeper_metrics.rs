//! Metrics of the requests to the keeper: session, endpoints, retries, batches and coalescing.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter},
};

use super::instruments::{counter, gauge};
use crate::{
    domain::{
        error::{Code, KmsError},
        time::Monotonic,
    },
    ports::{clock::Clock, keeper::Labels, telemetry::BreakerState},
};

const BATCH_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// When the token expires. `None` when the token never expires, or when there is no token.
type TokenEnd = Arc<Mutex<Option<Monotonic>>>;

/// The instruments of the requests to the keeper.
#[derive(Debug)]
pub(super) struct KeeperMetrics {
    logins: Counter<u64>,
    renewals: Counter<u64>,
    failures: Counter<u64>,
    retries: Counter<u64>,
    breaker: Gauge<u64>,
    stale: Gauge<u64>,
    queue_depth: Gauge<u64>,
    batch_size: Histogram<u64>,
    coalesced: Counter<u64>,
    token_end: TokenEnd,
    clock: Arc<dyn Clock>,
}

impl KeeperMetrics {
    pub(super) fn new(meter: &Meter, clock: Arc<dyn Clock>) -> Self {
        let token_end = TokenEnd::default();
        observe_token(meter, Arc::clone(&token_end), Arc::clone(&clock));
        Self {
            logins: counter(meter, "logins", "Tokens that were obtained."),
            renewals: counter(meter, "renewals", "Tokens that were renewed."),
            failures: counter(meter, "session_failures", "Logins and renewals that failed."),
            retries: counter(meter, "retries", "Requests to the keeper that were sent again."),
            breaker: gauge(
                meter,
                "endpoint_breaker",
                "Per endpoint: 0 used, 1 used with one request at a time, 2 not used.",
            ),
            stale: gauge(
                meter,
                "endpoint_stale",
                "Per endpoint: 1 while its key versions stay older than the others'.",
            ),
            queue_depth: gauge(meter, "queue_depth", "Unwraps that wait for the keeper."),
            batch_size: meter
                .u64_histogram("vault_kube_kms.batch_size")
                .with_description("Unwraps that waited and were sent together in one request.")
                .with_boundaries(BATCH_BUCKETS.to_vec())
                .build(),
            coalesced: counter(
                meter,
                "coalesced",
                "Unwraps that shared the request of an equal unwrap.",
            ),
            token_end,
            clock,
        }
    }

    /// Creates every series of each counter with the value 0: the series that all keepers share,
    /// and the series of `labels`.
    pub(super) fn create_series(&self, labels: Labels) {
        for counter in [&self.logins, &self.renewals, &self.coalesced] {
            counter.add(0, &[]);
        }
        for code in Code::ALL.iter().chain(labels.codes) {
            self.failures.add(0, &[KeyValue::new("code", code.as_str())]);
        }
        for reason in labels.retry_reasons {
            self.retries.add(0, &[KeyValue::new("reason", *reason)]);
        }
    }

    pub(super) fn logged_in(&self, ttl: Option<Duration>) {
        self.logins.add(1, &[]);
        self.set_token_end(ttl);
    }

    pub(super) fn session_closed(&self) {
        *self.token_end.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn renewed(&self, ttl: Option<Duration>) {
        self.renewals.add(1, &[]);
        self.set_token_end(ttl);
    }

    fn set_token_end(&self, ttl: Option<Duration>) {
        let end = ttl.map(|ttl| self.clock.now().after(ttl));
        *self.token_end.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }

    pub(super) fn session_failed(&self, error: &KmsError) {
        self.failures.add(1, &[KeyValue::new("code", error.code().as_str())]);
    }

    pub(super) fn retried(&self, reason: &'static str) {
        self.retries.add(1, &[KeyValue::new("reason", reason)]);
    }

    pub(super) fn breaker(&self, endpoint: usize, state: BreakerState) {
        let value = match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        let index = i64::try_from(endpoint).unwrap_or(i64::MAX);
        self.breaker.record(value, &[KeyValue::new("endpoint", index)]);
    }

    pub(super) fn stale(&self, endpoint: usize, stale: bool) {
        let index = i64::try_from(endpoint).unwrap_or(i64::MAX);
        self.stale.record(stale.into(), &[KeyValue::new("endpoint", index)]);
    }

    pub(super) fn queued(&self, depth: usize) {
        self.queue_depth.record(u64::try_from(depth).unwrap_or(u64::MAX), &[]);
    }

    pub(super) fn batched(&self, size: usize) {
        self.batch_size.record(u64::try_from(size).unwrap_or(u64::MAX), &[]);
    }

    pub(super) fn coalesced(&self) {
        self.coalesced.add(1, &[]);
    }
}

/// Adds a gauge that computes the remaining life of the token at scrape time.
fn observe_token(meter: &Meter, token_end: TokenEnd, clock: Arc<dyn Clock>) {
    // The meter keeps the callback; the handle is not needed.
    let _registered = meter
        .f64_observable_gauge("vault_kube_kms.token_left")
        .with_unit("s")
        .with_description("Remaining life of the token; absent when it never expires.")
        .with_callback(move |observer| {
            if let Some(end) = *token_end.lock().unwrap_or_else(PoisonError::into_inner) {
                observer.observe(end.since(clock.now()).as_secs_f64(), &[]);
            }
        })
        .build();
}
