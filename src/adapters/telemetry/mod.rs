//! Outbound: logs and metrics.

pub mod last_errors;
pub mod logging;
pub mod metrics;
pub mod recorder;

mod keeper_metrics;
mod repeats;
