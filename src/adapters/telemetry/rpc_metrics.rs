//! The duration of the API server's calls. It is recorded under the name that HashiCorp's plugin
//! uses, and under the newer name of the semantic conventions
//! (<https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/#metric-rpcservercallduration>).

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter},
};
use tonic::Code;

use crate::ports::telemetry::Method;

const SERVICE: &str = "v2.KeyManagementService";

/// Bucket boundaries in milliseconds, from a Status that only reads memory to a call that times
/// out.
const BUCKETS_MS: [f64; 14] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 3_000.0];

/// Bucket boundaries in seconds. They have a wider range than [`BUCKETS_MS`].
const BUCKETS_S: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 3.0, 5.0, 10.0,
];

/// The two histograms of calls.
#[derive(Debug)]
pub(super) struct RpcMetrics {
    duration: Histogram<f64>,
    call_duration: Histogram<f64>,
}

impl RpcMetrics {
    pub(super) fn new(meter: &Meter) -> Self {
        Self {
            duration: meter
                .f64_histogram("rpc.server.duration")
                .with_unit("ms")
                .with_description("Duration of the API server's calls.")
                .with_boundaries(BUCKETS_MS.to_vec())
                .build(),
            call_duration: meter
                .f64_histogram("rpc.server.call.duration")
                .with_unit("s")
                .with_description("Duration of the API server's calls.")
                .with_boundaries(BUCKETS_S.to_vec())
                .build(),
        }
    }

    /// Records a call that ended with the gRPC status `status`.
    pub(super) fn answered(&self, method: Method, status: i32, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let labels = [
            KeyValue::new("rpc.service", SERVICE),
            KeyValue::new("rpc.method", method.as_str()),
            KeyValue::new("rpc.grpc.status_code", i64::from(status)),
        ];
        self.duration.record(seconds * 1_000.0, &labels);
        let (status, is_failure) = status_code(status);
        let [method, system, status, error] = [
            KeyValue::new("rpc.method", qualified(method)),
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.response.status_code", status),
            KeyValue::new("error.type", status),
        ];
        if is_failure {
            self.call_duration.record(seconds, &[method, system, status, error]);
        } else {
            self.call_duration.record(seconds, &[method, system, status]);
        }
    }
}

const fn qualified(method: Method) -> &'static str {
    match method {
        Method::Decrypt => "v2.KeyManagementService/Decrypt",
        Method::Encrypt => "v2.KeyManagementService/Encrypt",
        Method::Status => "v2.KeyManagementService/Status",
    }
}

/// Returns the name of a gRPC status, and whether it is a failure of the server
/// (<https://opentelemetry.io/docs/specs/semconv/rpc/grpc/>).
const fn status_code(status: i32) -> (&'static str, bool) {
    match Code::from_i32(status) {
        Code::Ok => ("OK", false),
        Code::Cancelled => ("CANCELLED", false),
        Code::Unknown => ("UNKNOWN", true),
        Code::InvalidArgument => ("INVALID_ARGUMENT", false),
        Code::DeadlineExceeded => ("DEADLINE_EXCEEDED", true),
        Code::NotFound => ("NOT_FOUND", false),
        Code::AlreadyExists => ("ALREADY_EXISTS", false),
        Code::PermissionDenied => ("PERMISSION_DENIED", false),
        Code::ResourceExhausted => ("RESOURCE_EXHAUSTED", false),
        Code::FailedPrecondition => ("FAILED_PRECONDITION", false),
        Code::Aborted => ("ABORTED", false),
        Code::OutOfRange => ("OUT_OF_RANGE", false),
        Code::Unimplemented => ("UNIMPLEMENTED", true),
        Code::Internal => ("INTERNAL", true),
        Code::Unavailable => ("UNAVAILABLE", true),
        Code::DataLoss => ("DATA_LOSS", true),
        Code::Unauthenticated => ("UNAUTHENTICATED", false),
    }
}
