//! Logs, metrics, traces and the audit log.

pub mod audit;
pub mod last_errors;
pub mod lines;
pub mod logging;
pub mod metrics;
pub mod outlets;
pub mod program_name;
pub mod recorder;
pub mod traces;

mod audit_file;
mod expiry_warnings;
mod instruments;
mod journal;
mod keeper_metrics;
mod peers;
mod process_metrics;
mod repeats;
mod rpc_metrics;
mod states;
mod text;
