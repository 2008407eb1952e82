//! Contains the port that a keeper of a key-encryption key implements, the domain that uses the
//! port, and the test suite (`testkit`, a feature) that checks a keeper against the contract.
//!
//! To add a keeper, implement [`ports::kek::Kek`] and run the suite; `docs/keepers.md` says how.
//! The crate `vault-kube-kms` serves the keeper to kube-apiserver.

pub mod domain;
pub mod ports;
#[cfg(feature = "testkit")]
pub mod testkit;
