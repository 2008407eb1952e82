//! Inbound: probes, metrics and a status page over HTTP.

mod local_name;
pub mod routes;
pub mod server;
pub mod statusz;
