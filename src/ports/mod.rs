//! The doors of the domain, one capability each. The contract stands on the trait.

pub mod clock;
pub mod credentials;
pub mod kek;
pub mod kms;
pub mod telemetry;
