//! `vault-kube-kmsctl`: reads etcd, its snapshots and API servers, and says what is encrypted with
//! which version of which key. `docs/prove.md` says when to use which command.
//!
//! ```text
//!   cli           the commands: they choose adapters and connect them
//!   installation  the files and steps of a new installation, from the provider's own settings
//!   domain        what a stored object says; the judgements      pure: values and rules
//!   ports         objects, seeds, and what else comes from outside
//!   adapters      etcd, snapshots, API servers, plugins, keepers
//! ```
//!
//! Dependencies point inward, as in the provider; `tests/architecture.rs` checks that. The provider
//! depends on nothing here.

pub mod adapters;
pub mod cli;
pub mod domain;
pub mod installation;
pub mod ports;
