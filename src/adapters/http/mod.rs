//! Inbound: probes, metrics and a status page over HTTP.

pub mod endpoints;
pub mod server;
pub mod statusz;
