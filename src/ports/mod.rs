//! The ports of the domain. Each port is a trait for one capability; the comment on the trait is
//! its contract.

use std::sync::Arc;

pub mod abilities;
pub mod audit;
pub mod clock;
pub mod file;
pub mod finding;
pub mod keeper;
pub mod kek;
pub mod kms;
pub mod telemetry;
pub mod workload_identity;

/// The ports that the domain uses.
#[derive(Clone, Debug)]
pub struct Ports {
    /// The key of the keeper, with all layers.
    pub kek: Arc<dyn kek::Kek>,
    /// The clocks.
    pub clock: Arc<dyn clock::Clock>,
    /// The receiver of events.
    pub telemetry: Arc<dyn telemetry::Telemetry>,
}
