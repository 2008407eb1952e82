//! The span of one request to the keeper, with what an operator needs to find it in the keeper's
//! audit log.

use serde::Deserialize;
use tracing::{Span, field::Empty, info_span};

use super::{Answer, Call, Failure};
use crate::{
    adapters::vault::address::VaultAddress, domain::error::KmsError, ports::telemetry::TRACE_TARGET,
};

/// What every answer of Vault bears.
#[derive(Deserialize)]
struct Bearing {
    request_id: String,
}

/// The span of sending `call` to `address`, below that of the moment.
pub(super) fn span(call: &Call<'_>, address: Option<&VaultAddress>) -> Span {
    info_span!(
        target: TRACE_TARGET,
        "keeper",
        otel.name = %format_args!("{} {}", call.method, call.path),
        otel.kind = "client",
        otel.status_code = Empty,
        server.address = address.map(tracing::field::display),
        http.response.status_code = Empty,
        vault.request_id = Empty,
        error.code = Empty,
    )
}

/// Notes on `span` how its request ended.
pub(super) fn ended(span: &Span, outcome: &Result<Answer, Failure>, error: Option<&KmsError>) {
    if span.is_disabled() {
        return;
    }
    let status = match outcome {
        Ok(answer) => {
            if let Ok(bearing) = answer.parse::<Bearing>() {
                span.record("vault.request_id", bearing.request_id);
            }
            Some(answer.status)
        }
        Err(Failure::Refused(refusal)) => Some(refusal.status),
        Err(Failure::Unsent(_) | Failure::Lost(_)) => None,
    };
    if let Some(status) = status {
        span.record("http.response.status_code", status);
    }
    if let Some(error) = error {
        span.record("otel.status_code", "ERROR");
        span.record("error.code", error.code().as_str());
    }
}
