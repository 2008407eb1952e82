//! A Kubernetes KMS v2 provider whose key-encryption key never leaves its keeper. `docs/architecture.md`
//! shows the way of a Decrypt and of a rotation in time.
//!
//! ```text
//!            kube-apiserver                                 operator, Prometheus
//!                  | gRPC, Unix socket                              | HTTP
//!            adapters::grpc                                   adapters::http
//!                  v
//!   ports::kms  KeyManagement
//!                  v
//!   domain      KeyService <- KeyWatch <- Observer        pure: values and rules
//!                  v              v
//!   ports       Kek  Clock  Telemetry                     one capability each
//!                  v
//!            adapters::layers      (around any Kek)
//!            adapters::vault       adapters::local        adapters::{system, telemetry}
//! ```
//!
//! Dependencies point inward, and `tests/architecture.rs` holds them to it. The domain, the ports and
//! the suite for keepers are a crate of their own, `kms-keeper`, whose sources stand beside these. An
//! author of another keeper implements [`ports::kek::Kek`] and runs the suite of `testkit` (a feature)
//! against it; `examples/` shows one.

pub mod adapters;
pub mod cli;
pub mod config;
pub mod prelude;

pub use kms_keeper::{domain, ports};
#[cfg(feature = "testkit")]
pub use kms_keeper::{kek_contract, testkit};
