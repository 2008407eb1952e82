//! Inbound: probes, metrics and a status page over HTTP.

pub mod endpoints;
mod local_name;
pub mod server;
pub mod statusz;
