//! Makes the span of a call and joins it to the trace of the caller (W3C `traceparent`).

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Span, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::{
    domain::error::KmsError,
    ports::telemetry::{Method, TRACE_TARGET},
};

/// Returns the span of a call with these headers. Does almost nothing when spans are not collected.
pub(super) fn span(method: Method, headers: &HeaderMap) -> Span {
    let span = info_span!(
        target: TRACE_TARGET,
        "kms",
        otel.name = method.as_str(),
        otel.kind = "server",
        otel.status_code = Empty,
        error.code = Empty,
    );
    if !span.is_disabled() {
        let caller = TraceContextPropagator::new().extract(&Headers(headers));
        // Fails only for a span that has begun. This span has not.
        drop(span.set_parent(caller));
    }
    span
}

/// Records on the current span that its call failed with `error`.
pub(super) fn failed(error: &KmsError) {
    let span = Span::current();
    span.record("otel.status_code", "ERROR");
    span.record("error.code", error.code().as_str());
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
