//! Outbound: logs and metrics.

pub mod logging;
pub mod metrics;
pub mod recorder;

mod keeper_metrics;
mod repeats;
