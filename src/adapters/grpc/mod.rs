//! Inbound: KMS v2 over gRPC on a Unix socket.

pub mod address;
pub mod authority;
pub mod bind_error;
pub mod client;
pub mod deadline;
pub mod incoming;
mod inherited;
pub mod server;
pub mod socket;
pub mod socket_file;
pub mod socket_guard;

mod connection;
mod counted;
mod service;
mod socket_directory;
mod status;
mod trace;

/// The generated wire types of `proto/kms_v2.proto`.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated code; messages that hold a seed have no Debug"
)]
pub mod wire {
    tonic::include_proto!("v2");
}
