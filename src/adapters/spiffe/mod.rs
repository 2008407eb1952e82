//! The identity of this process from a SPIFFE agent, over the agent's Workload API.
//!
//! The four messages that are needed are sent over the HTTP/2 and gRPC libraries that this program
//! has already. The crate `spiffe` does the same with 57 further crates, one of which
//! (`arc-swap`) `deny.toml` refuses.

pub mod settings;
pub mod workload_api;

mod connection;
mod problem;
mod svid;

/// The generated wire types of `proto/spiffe_workload.proto`.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated code; messages that hold a credential have no Debug"
)]
mod wire {
    tonic::include_proto!("_");
}
