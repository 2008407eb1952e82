//! The ports over real systems. Adapters do not name each other.

pub mod api_server_manifest;
pub mod etcd;
pub mod snapshot;
pub mod api_server_metrics;
pub mod statusz;
