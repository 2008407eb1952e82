//! The outbound adapter for a KEK in the Transit engine of Vault or OpenBao. It logs in with
//! one of several methods.

pub mod address;
pub mod bundle;
pub mod capabilities;
pub mod client;
pub mod client_pair;
pub mod handshake;
pub mod keeper;
pub mod key_path;
pub mod login;
pub mod policy;
pub mod servers;
pub mod session;
pub mod settings;
pub mod tls;
pub mod transit;
pub mod vocabulary;

mod check;
mod pem;
mod post_quantum;
mod refusal;
mod request_id;
mod system_authorities;
mod tls_error;
mod unreachable;
mod verifier;
mod wire;
