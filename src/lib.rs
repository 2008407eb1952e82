//! A Kubernetes KMS v2 provider whose key-encryption key (KEK) never leaves its keeper.
//! `docs/architecture.md` shows the steps of a Decrypt and of a rotation.
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
//! Dependencies point inward; `tests/architecture.rs` checks that. The domain, the ports and the
//! test suite for keepers form a separate crate, `kms-keeper`. Its sources are in this directory.
//! To add a keeper, implement [`ports::kek::Kek`] and run the suite of `testkit` (a feature)
//! against it. `examples/` contains an example.

pub mod adapters;
pub mod cli;
pub mod config;
pub mod prelude;

pub use kms_keeper::{domain, ports};
#[cfg(feature = "testkit")]
pub use kms_keeper::{kek_contract, testkit};
