//! The doors of the domain, one capability each. The contract stands on the trait.

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

/// The ports that the domain works through.
#[derive(Clone, Debug)]
pub struct Ports {
    /// The keeper, with all its layers.
    pub kek: Arc<dyn kek::Kek>,
    /// Time.
    pub clock: Arc<dyn clock::Clock>,
    /// Who listens.
    pub telemetry: Arc<dyn telemetry::Telemetry>,
}
