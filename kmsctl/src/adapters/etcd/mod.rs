//! Reads the objects of a live etcd over its API v3 (gRPC). It only reads: `KV.Range`, and
//! `Auth.Authenticate` when a user is given.

mod failure;
mod members;
mod range;
mod settings;
mod tls_error;
mod wire;

pub use range::EtcdObjects;
pub use settings::{EtcdSettings, User};
