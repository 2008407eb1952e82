//! The trace span of one request to the keeper. It has the request id, by which an operator finds
//! the request in the keeper's audit log.

use serde::Deserialize;
use tracing::{Span, field::Empty, info_span};

use super::{Failure, Request, exchange::Raw};
use crate::{
    adapters::vault::{address::VaultAddress, request_id},
    domain::error::KmsError,
    ports::telemetry::TRACE_TARGET,
};

/// The field that every answer of Vault has.
#[derive(Deserialize)]
struct WithRequestId {
    #[serde(default, deserialize_with = "request_id::read")]
    request_id: Option<String>,
}

/// Returns the span for sending `request` to `address`, as a child of the current span.
pub(super) fn span(request: &Request<'_>, address: Option<&VaultAddress>) -> Span {
    info_span!(
        target: TRACE_TARGET,
        "keeper",
        otel.name = %format_args!("{} {}", request.method, request.path),
        otel.kind = "client",
        otel.status_code = Empty,
        server.address = address.map(tracing::field::display),
        http.response.status_code = Empty,
        vault.request_id = Empty,
        error.code = Empty,
    )
}

/// Records the status and the request id of the answer on the current span.
pub(super) fn answered(raw: &Result<Raw, Failure>) {
    let (Ok(raw), span) = (raw, Span::current()) else { return };
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", raw.status);
    if let Ok(answer) = serde_json::from_slice::<WithRequestId>(&raw.body) {
        span.record("vault.request_id", answer.request_id);
    }
}

/// Records on `span` why its request failed.
pub(in crate::adapters::vault) fn record_failure(span: &Span, error: &KmsError) {
    span.record("otel.status_code", "ERROR");
    span.record("error.code", error.code().as_str());
}
