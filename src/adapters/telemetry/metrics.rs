//! Metrics by OpenTelemetry, exposed in Prometheus' text form. The names of the original come
//! first: existing dashboards read them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter, MeterProvider as _},
};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder, process_collector::ProcessCollector};
use tokio::runtime::Handle;

use super::{
    instruments::{counter, gauge},
    keeper_metrics::KeeperMetrics,
};
use crate::{
    domain::{error::KmsError, rotation::Writer, time::Monotonic},
    ports::{
        clock::Clock,
        telemetry::{EndReason, KeeperOperation, Method},
    },
};

const SERVICE: &str = "v2.KeyManagementService";

/// From a Status that reads memory to a call that times out, in milliseconds.
const RPC_BUCKETS_MS: [f64; 14] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 3_000.0];

/// The same for requests to the keeper, in seconds.
const KEEPER_BUCKETS_S: [f64; 12] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// All instruments, and the registry that shows them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    _provider: SdkMeterProvider,
    connection: KeyValue,
    rpc: Histogram<f64>,
    keeper_calls: Counter<u64>,
    keeper_errors: Counter<u64>,
    keeper_time: Histogram<f64>,
    healthy: Gauge<u64>,
    key_version: Gauge<u64>,
    key_id: Gauge<u64>,
    takeover: Gauge<f64>,
    legacy_reads: Counter<u64>,
    incidents: Counter<u64>,
    connections_ended: Counter<u64>,
    peers_denied: Counter<u64>,
    proven_at: Arc<Mutex<Option<Monotonic>>>,
    /// Those of the way to the keeper.
    pub(super) keeper: KeeperMetrics,
}

impl Metrics {
    /// Instruments with nothing recorded. `connection` names the keeper in the label
    /// `vault_connection`; `runtime` adds those of the process.
    ///
    /// # Errors
    /// When the exporter cannot be set up.
    pub fn new(
        connection: &str,
        runtime: bool,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let registry = Registry::new();
        if runtime {
            registry.register(Box::new(ProcessCollector::for_self()))?;
        }
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()?;
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let meter = provider.meter("vault-kube-kms");
        let proven_at = Arc::new(Mutex::new(None));
        observe_proof_age(&meter, Arc::clone(&proven_at), Arc::clone(&clock));
        if runtime {
            observe_tasks(&meter);
        }
        Ok(Self {
            registry,
            _provider: provider,
            connection: KeyValue::new("vault_connection", connection.to_owned()),
            rpc: meter
                .f64_histogram("rpc.server.duration")
                .with_unit("ms")
                .with_description("Duration of the API server's calls.")
                .with_boundaries(RPC_BUCKETS_MS.to_vec())
                .build(),
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
            key_version: gauge(&meter, "key_version", "The key version that writes."),
            key_id: gauge(
                &meter,
                "key_id_info",
                "1 for the key id that writes; the hash is that of the API server's metrics.",
            ),
            takeover: meter
                .f64_gauge("vault_kube_kms.next_version")
                .with_unit("s")
                .with_description("Time until the next key version takes over; 0 when none waits.")
                .build(),
            legacy_reads: counter(&meter, "legacy_reads", "Reads of what other plugins wrote."),
            incidents: counter(&meter, "incidents", "The key was replaced or rolled back."),
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
            proven_at,
            keeper: KeeperMetrics::new(&meter, clock),
        })
    }

    /// All metrics in Prometheus' text form.
    ///
    /// # Errors
    /// When they cannot be put into text.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    pub(super) fn answered(&self, method: Method, status: i32, elapsed: Duration) {
        let labels = [
            KeyValue::new("rpc.service", SERVICE),
            KeyValue::new("rpc.method", method.as_str()),
            KeyValue::new("rpc.grpc.status_code", i64::from(status)),
        ];
        self.rpc.record(elapsed.as_secs_f64() * 1_000.0, &labels);
    }

    pub(super) fn keeper_called(
        &self,
        operation: KeeperOperation,
        elapsed: Duration,
        error: Option<&KmsError>,
    ) {
        let labels = [KeyValue::new("operation", operation.as_str()), self.connection.clone()];
        let count = if error.is_some() { &self.keeper_errors } else { &self.keeper_calls };
        count.add(1, &labels);
        self.keeper_time.record(elapsed.as_secs_f64(), &labels);
    }

    pub(super) fn standing(&self, healthy: bool) {
        self.healthy.record(healthy.into(), &[]);
    }

    pub(super) fn writing(&self, writer: &Writer, before: Option<&Writer>) {
        self.key_version.record(writer.version.get().into(), &[]);
        let label = |writer: &Writer| [KeyValue::new("key_id_hash", writer.key_id.hash())];
        if let Some(before) = before {
            self.key_id.record(0, &label(before));
        }
        self.key_id.record(1, &label(writer));
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

    pub(super) fn peer_denied(&self) {
        self.peers_denied.add(1, &[]);
    }

    pub(super) fn incident(&self, error: &KmsError) {
        self.incidents.add(1, &[KeyValue::new("reason", error.code().as_str())]);
    }
}

/// The age of the last proof is read off at scrape time, so that it grows when proofs stop.
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

/// A number that only grows is a leak, long before memory shows it.
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
