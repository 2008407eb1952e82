//! What touches the world, one folder for each neighbour. Adapters know ports and domain, and
//! nothing of each other but `connections`, which the servers share, `atomic_file` and `rfc3339`;
//! `cli` puts them together.

pub mod atomic_file;
pub mod grpc;
pub mod http;
pub mod layers;
pub mod local;
pub mod pkcs11;
pub mod spiffe;
pub mod system;
pub mod telemetry;
pub mod vault;

mod connections;
pub(crate) mod rfc3339;
