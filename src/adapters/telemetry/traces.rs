//! Sends traces to a collector by OTLP over gRPC (`--otlp-endpoint`).
//!
//! Spans have a target of their own ([`TRACE_TARGET`]). Without a collector, a span costs only the
//! check of a flag.

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
pub(super) type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// The traces of this process.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Returns traces that go to `endpoint`, which has the form `http://HOST:PORT`. Call this
    /// within the runtime. Nothing is sent yet. While the collector is unreachable, spans are lost,
    /// and calls are not affected.
    ///
    /// # Errors
    /// When `endpoint` is not valid. The error says why.
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
            // A span with a remote parent follows the caller's decision. Spans without a parent are
            // few, so all of them are sampled.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_resource(resource)
            .build();
        Ok(Self(provider))
    }

    pub(super) fn layer(&self) -> SpanLayer {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(program_name::get()))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(TRACE_TARGET, LevelFilter::INFO))
            .boxed()
    }

    /// Sends the spans that are not sent yet. Blocks for at most 5 s, so do not call it on a thread
    /// of the runtime.
    pub fn flush(&self) {
        drop(self.0.shutdown_with_timeout(EXPORT_TIMEOUT));
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Traces")
    }
}
