//! Inbound: probes and metrics over HTTP.

pub mod endpoints;
pub mod server;
