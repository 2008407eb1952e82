//! Outbound: logs, metrics and traces.

pub mod last_errors;
pub mod lines;
pub mod logging;
pub mod metrics;
pub mod outlets;
pub mod recorder;
pub mod traces;

mod expiry_warnings;
mod instruments;
mod journal;
mod keeper_metrics;
mod process_metrics;
mod repeats;
mod rpc_metrics;
mod states;
