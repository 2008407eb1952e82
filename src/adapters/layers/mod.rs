//! Outbound: the layers around every keeper. Each layer implements the port that it wraps.

use std::sync::Arc;

use self::{batch::Batch, coalesce::Coalesce, deadline::Deadline, metered::Metered, seal::Seal};
use crate::ports::{clock::Clock, kek::Kek, telemetry::Telemetry};

pub mod batch;
pub mod coalesce;
pub mod deadline;
pub mod metered;
pub mod seal;

#[cfg(test)]
mod gated;

#[cfg(test)]
#[path = "stack_tests.rs"]
mod tests;

/// Returns `kek` in all layers, from the outside in:
/// - [`Deadline`] ends each call at the deadline of its caller;
/// - [`Coalesce`] lets equal unwraps share one call;
/// - [`Batch`] bounds the calls at once, and sends waiting unwraps together if `kek` has batches;
/// - [`Deadline`] ends each call to `kek` at its deadline;
/// - [`Seal`] adds binding and versions, for a keeper that does not bind or does not pin;
/// - [`Metered`] counts requests, for a keeper that does not count them.
#[must_use]
pub fn around(
    kek: Arc<dyn Kek>,
    clock: &Arc<dyn Clock>,
    telemetry: &Arc<dyn Telemetry>,
) -> Arc<dyn Kek> {
    let abilities = kek.abilities();
    let mut kek = kek;
    if !abilities.counts_requests {
        kek = Arc::new(Metered::new(kek, Arc::clone(clock), Arc::clone(telemetry)));
    }
    if !(abilities.binds && abilities.pins_versions) {
        kek = Arc::new(Seal::new(kek));
    }
    let bounded = Deadline::new(kek, Arc::clone(clock));
    let batch = Batch::new(bounded, Arc::clone(clock), Arc::clone(telemetry));
    let coalesce = Coalesce::new(batch, Arc::clone(clock), Arc::clone(telemetry));
    Arc::new(Deadline::new(Arc::new(coalesce), Arc::clone(clock)))
}
