//! The span of one request to the keeper, with what an operator needs to find it in the keeper's
//! audit log.

use serde::Deserialize;
use tracing::{Span, field::Empty, info_span};

use super::{Failure, Request, exchange::Raw};
use crate::{
    adapters::vault::address::VaultAddress, domain::error::KmsError, ports::telemetry::TRACE_TARGET,
};

/// What every answer of Vault bears.
#[derive(Deserialize)]
struct Bearing {
    request_id: String,
}

/// The span of sending `request` to `address`, below that of the moment.
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

/// Notes on the span of the moment what came back.
pub(super) fn answered(raw: &Result<Raw, Failure>) {
    let (Ok(raw), span) = (raw, Span::current()) else { return };
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", raw.status);
    if let Ok(bearing) = serde_json::from_slice::<Bearing>(&raw.body) {
        span.record("vault.request_id", bearing.request_id);
    }
}

/// Notes on `span` why its request failed.
pub(super) fn failed(span: &Span, error: &KmsError) {
    span.record("otel.status_code", "ERROR");
    span.record("error.code", error.code().as_str());
}
