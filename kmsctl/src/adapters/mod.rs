//! The ports over real systems. Adapters do not name each other.

pub mod api_server;
pub mod api_server_manifest;
pub mod etcd;
pub mod hook;
pub mod installation;
pub mod keeper_seeds;
pub mod plugin_seeds;
pub mod saved_run;
pub mod snapshot;
pub mod socket;
pub mod statusz;
