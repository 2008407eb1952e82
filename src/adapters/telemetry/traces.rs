//! Traces, sent to a collector by OTLP over gRPC (`--otlp-endpoint`).
//!
//! Spans have a target of their own ([`TRACE_TARGET`]): where nobody collects them, they cost no
//! more than the look at a flag.

use std::{fmt, time::Duration};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    registry::Registry,
};

use super::program_name;
use crate::ports::telemetry::TRACE_TARGET;

/// How long one export may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// A layer that collects spans.
pub(super) type Collecting = Box<dyn Layer<Registry> + Send + Sync>;

/// The traces of this process.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Traces that go to `endpoint`, `http://HOST:PORT`. To be called within the runtime. Nothing
    /// is sent yet; a collector that is away costs spans, and nothing else.
    ///
    /// # Errors
    /// What is wrong with the endpoint.
    pub fn to(endpoint: &str) -> Result<Self, String> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|error| error.to_string())?;
        let resource = Resource::builder().with_service_name(program_name::get()).build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            // What the caller of a call chose, holds for ours; our own are few.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_resource(resource)
            .build();
        Ok(Self(provider))
    }

    pub(super) fn layer(&self) -> Collecting {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(program_name::get()))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(TRACE_TARGET, LevelFilter::INFO))
            .boxed()
    }

    /// Sends what was not sent yet. Blocks, for as long as an export takes; not to be called on
    /// the runtime's thread.
    pub fn flush(&self) {
        drop(self.0.shutdown_with_timeout(EXPORT_TIMEOUT));
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Traces")
    }
}
