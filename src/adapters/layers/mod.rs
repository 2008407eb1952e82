//! Outbound: what every keeper gets, whoever keeps. Each layer implements the port it wraps.

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

/// Returns `kek` in all layers: each caller is held to its deadline, equal unwraps share a call, as
/// many are out at once as `kek` takes, those that wait go together where it has batches, and no call
/// to `kek` outlives its deadline. A keeper that does not bind or pin stands behind [`Seal`], and one
/// that does not count its requests behind [`Metered`].
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
