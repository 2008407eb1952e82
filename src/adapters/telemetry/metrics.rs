//! Metrics by OpenTelemetry, exposed in the text format of Prometheus. Metrics that HashiCorp's
//! plugin also has keep its names, because existing dashboards read them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter, MeterProvider as _},
};
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
use prometheus::{Registry, TextEncoder};
use tokio::runtime::Handle;

use super::{
    instruments::{counter, gauge},
    keeper_metrics::KeeperMetrics,
    outlets,
    peers::Peers,
    process_metrics,
    rpc_metrics::RpcMetrics,
    states::{Expiries, KeyIds, Problem},
};
use crate::{
    domain::{
        error::{Code, KmsError},
        health::Standing,
        key::KekVersion,
        rotation::Writer,
        time::{Monotonic, UnixTime},
    },
    ports::{
        clock::Clock,
        keeper::Labels,
        telemetry::{EndReason, Expiring, KeeperOperation, Method},
    },
};

/// Bucket boundaries for the duration of requests to the keeper, in seconds.
const KEEPER_BUCKETS_S: [f64; 12] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// The codes that an incident can have.
const INCIDENTS: [Code; 2] = [Code::KeyReplaced, Code::KeyRolledBack];

/// The most series of one instrument. Calls have the most: 3 methods with 17 statuses each. The
/// library allocates memory for this number at once; its default is 2,000.
const SERIES_MAX: usize = 64;

/// All instruments, and the registry that exposes them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    meter: Meter,
    _provider: SdkMeterProvider,
    connection: KeyValue,
    rpc: RpcMetrics,
    keeper_calls: Counter<u64>,
    keeper_errors: Counter<u64>,
    keeper_time: Histogram<f64>,
    healthy: Gauge<u64>,
    problem: Problem,
    key_version: Gauge<u64>,
    newest_version: Gauge<u64>,
    takeover: Gauge<f64>,
    legacy_reads: Counter<u64>,
    incidents: Counter<u64>,
    connections_ended: Counter<u64>,
    peers_denied: Counter<u64>,
    authorities_rewritten: Counter<u64>,
    peers: Peers,
    proven_at: Arc<Mutex<Option<Monotonic>>>,
    key_ids: KeyIds,
    expiries: Expiries,
    /// The instruments of the requests to the keeper.
    pub(super) keeper: KeeperMetrics,
}

impl Metrics {
    /// Returns all instruments, with every counter at 0. `connection` is the value of the label
    /// `vault_connection`. `labels` are the codes and retry reasons of the keeper. `runtime` adds
    /// the metrics of the process and of its tasks.
    ///
    /// # Errors
    /// When the exporter cannot be built.
    pub fn new(
        connection: &str,
        labels: Labels,
        runtime: bool,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()?;
        let provider = SdkMeterProvider::builder()
            .with_reader(exporter)
            .with_view(|_: &Instrument| {
                Stream::builder().with_cardinality_limit(SERIES_MAX).build().ok()
            })
            .build();
        let meter = provider.meter("vault-kube-kms");
        let proven_at = Arc::new(Mutex::new(None));
        observe_proof_age(&meter, Arc::clone(&proven_at), Arc::clone(&clock));
        observe_dropped_lines(&meter);
        if runtime {
            observe_tasks(&meter);
            process_metrics::observe(&meter);
        }
        let metrics = Self {
            registry,
            meter: meter.clone(),
            _provider: provider,
            connection: KeyValue::new("vault_connection", connection.to_owned()),
            rpc: RpcMetrics::new(&meter),
            keeper_calls: meter
                .u64_counter("vso_client_operations")
                .with_description("Requests to the keeper that succeeded.")
                .build(),
            keeper_errors: meter
                .u64_counter("vso_client_operations_errors")
                .with_description("Requests to the keeper that failed.")
                .build(),
            keeper_time: meter
                .f64_histogram("vso_client_operations_time")
                .with_unit("s")
                .with_description("Duration of requests to the keeper.")
                .with_boundaries(KEEPER_BUCKETS_S.to_vec())
                .build(),
            healthy: gauge(&meter, "healthy", "1 while Status answers ok."),
            problem: Problem::register(&meter),
            key_version: gauge(&meter, "key_version", "The key version that writes."),
            newest_version: gauge(&meter, "newest_version", "The newest key version."),
            takeover: meter
                .f64_gauge("vault_kube_kms.next_version")
                .with_unit("s")
                .with_description("Time until the next key version takes over; 0 when none waits.")
                .build(),
            legacy_reads: counter(
                &meter,
                "legacy_reads",
                "Decrypts of objects that other plugins wrote.",
            ),
            incidents: counter(
                &meter,
                "incidents",
                "Times that the key was replaced or rolled back.",
            ),
            connections_ended: counter(
                &meter,
                "connections_ended",
                "Connections to the socket that the provider ended.",
            ),
            peers_denied: counter(
                &meter,
                "peers_denied",
                "Connections of uids that may not connect.",
            ),
            authorities_rewritten: counter(
                &meter,
                "authority_rewritten",
                "Connections of API servers before 1.32, whose :authority is rewritten.",
            ),
            peers: Peers::new(&meter),
            proven_at,
            key_ids: KeyIds::register(&meter),
            expiries: Expiries::register(&meter),
            keeper: KeeperMetrics::new(&meter, clock),
        };
        metrics.create_series(labels);
        Ok(metrics)
    }

    /// Creates every series of each counter with the value 0. An alert on `increase()` does not
    /// fire for a series whose first value is 1.
    fn create_series(&self, labels: Labels) {
        for operation in KeeperOperation::ALL {
            let labels = self.request_labels(operation);
            self.keeper_calls.add(0, &labels);
            self.keeper_errors.add(0, &labels);
        }
        for code in INCIDENTS {
            self.incidents.add(0, &[KeyValue::new("reason", code.as_str())]);
        }
        self.legacy_reads.add(0, &[]);
        self.peers_denied.add(0, &[]);
        self.authorities_rewritten.add(0, &[]);
        for reason in EndReason::ALL {
            self.connections_ended.add(0, &[KeyValue::new("reason", reason.as_str())]);
        }
        self.keeper.create_series(labels);
    }

    /// Returns the labels of a request to the keeper.
    fn request_labels(&self, operation: KeeperOperation) -> [KeyValue; 2] {
        [KeyValue::new("operation", operation.as_str()), self.connection.clone()]
    }

    /// Returns all metrics in the text format of Prometheus.
    ///
    /// # Errors
    /// When the encoder fails.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    pub(super) fn answered(&self, method: Method, status: i32, elapsed: Duration) {
        self.rpc.answered(method, status, elapsed);
    }

    pub(super) fn keeper_called(
        &self,
        operation: KeeperOperation,
        elapsed: Duration,
        error: Option<&KmsError>,
    ) {
        let labels = self.request_labels(operation);
        let count = if error.is_some() { &self.keeper_errors } else { &self.keeper_calls };
        count.add(1, &labels);
        self.keeper_time.record(elapsed.as_secs_f64(), &labels);
    }

    pub(super) fn standing(&self, standing: &Standing) {
        self.healthy.record((*standing == Standing::Healthy).into(), &[]);
        let (_, code) = standing.kind();
        self.problem.set(code);
    }

    pub(super) fn appeared(&self, version: KekVersion) {
        self.newest_version.record(version.get().into(), &[]);
    }

    pub(super) fn writing(&self, writer: &Writer) {
        self.key_version.record(writer.version.get().into(), &[]);
        self.key_ids.writes(&writer.key_id);
    }

    pub(super) fn takeover(&self, wait: Option<Duration>) {
        self.takeover.record(wait.unwrap_or_default().as_secs_f64(), &[]);
    }

    pub(super) fn proven(&self, now: Monotonic) {
        *self.proven_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    pub(super) fn legacy_read(&self) {
        self.legacy_reads.add(1, &[]);
    }

    pub(super) fn connection_ended(&self, reason: EndReason) {
        self.connections_ended.add(1, &[KeyValue::new("reason", reason.as_str())]);
    }

    pub(super) fn called_by(&self, uid: u32, succeeded: bool) {
        self.peers.called(uid, succeeded);
    }

    /// Adds a counter whose value is `lost()`: the number of lost entries of the audit log.
    pub fn observe_audit(&self, lost: impl Fn() -> u64 + Send + Sync + 'static) {
        let _registered = self
            .meter
            .u64_observable_counter("vault_kube_kms.audit_entries_lost")
            .with_description("Entries of the audit log that could not be written.")
            .with_callback(move |observer| observer.observe(lost(), &[]))
            .build();
    }

    pub(super) fn peer_denied(&self) {
        self.peers_denied.add(1, &[]);
    }

    pub(super) fn authority_rewritten(&self) {
        self.authorities_rewritten.add(1, &[]);
    }

    pub(super) fn expires(&self, what: Expiring, at: Option<UnixTime>) {
        self.expiries.set(what, at);
    }

    pub(super) fn incident(&self, error: &KmsError) {
        self.incidents.add(1, &[KeyValue::new("reason", error.code().as_str())]);
    }
}

/// Adds a gauge that computes the age of the last proof at scrape time, so that it grows when
/// proofs stop.
fn observe_proof_age(
    meter: &Meter,
    proven_at: Arc<Mutex<Option<Monotonic>>>,
    clock: Arc<dyn Clock>,
) {
    // The meter keeps the callback; the handle is not needed.
    let _registered = meter
        .f64_observable_gauge("vault_kube_kms.last_proof_age")
        .with_unit("s")
        .with_description("Time since a wrap and an unwrap were last proven to work.")
        .with_callback(move |observer| {
            if let Some(at) = *proven_at.lock().unwrap_or_else(PoisonError::into_inner) {
                observer.observe(clock.now().since(at).as_secs_f64(), &[]);
            }
        })
        .build();
}

/// Adds a counter of the lines that the queues of the log dropped.
fn observe_dropped_lines(meter: &Meter) {
    let _registered = meter
        .u64_observable_counter("vault_kube_kms.log_lines_dropped")
        .with_description("Log lines that were dropped because the reader was too slow.")
        .with_callback(|observer| observer.observe(outlets::dropped(), &[]))
        .build();
}

/// Adds a gauge of the tasks of the runtime. A number that only grows shows a leak earlier than the
/// memory does.
fn observe_tasks(meter: &Meter) {
    let _registered = meter
        .u64_observable_gauge("vault_kube_kms.tasks")
        .with_description("Tasks of the runtime that have not ended.")
        .with_callback(|observer| {
            if let Ok(runtime) = Handle::try_current() {
                let tasks = runtime.metrics().num_alive_tasks();
                observer.observe(u64::try_from(tasks).unwrap_or(u64::MAX), &[]);
            }
        })
        .build();
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
