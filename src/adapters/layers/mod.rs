//! Outbound: what every keeper gets, whoever keeps. Each layer implements the port it wraps.

use std::sync::Arc;

use self::{batch::Batch, coalesce::Coalesce, deadline::Deadline};
use crate::ports::{clock::Clock, kek::Kek, telemetry::Telemetry};

pub mod batch;
pub mod coalesce;
pub mod deadline;

#[cfg(test)]
mod held;

#[cfg(test)]
#[path = "stack_tests.rs"]
mod tests;

/// `kek` in all layers: each caller is held to its deadline, equal unwraps share a call, those that
/// wait go together, and no call to `kek` outlives its deadline.
#[must_use]
pub fn around(
    kek: Arc<dyn Kek>,
    clock: &Arc<dyn Clock>,
    telemetry: &Arc<dyn Telemetry>,
) -> Arc<dyn Kek> {
    let bounded = Deadline::new(kek, Arc::clone(clock));
    let batch = Batch::new(bounded, Arc::clone(clock), Arc::clone(telemetry));
    let coalesce = Coalesce::new(batch, Arc::clone(clock), Arc::clone(telemetry));
    Arc::new(Deadline::new(Arc::new(coalesce), Arc::clone(clock)))
}
