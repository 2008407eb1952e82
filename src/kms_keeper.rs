//! The port that a keeper of a key-encryption key implements, the domain that stands on it, and the
//! suite (`testkit`, a feature) that holds a keeper to the contract. `docs/keepers.md` is the page for
//! authors.
//!
//! An author implements [`ports::kek::Kek`] and runs the suite. The crate `vault-kube-kms` serves the
//! keeper to kube-apiserver.

pub mod domain;
pub mod ports;
#[cfg(feature = "testkit")]
pub mod testkit;
