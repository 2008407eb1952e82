//! Runs the contract suite against every keeper.
#![allow(missing_docs, unreachable_pub, clippy::pedantic, clippy::restriction, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod batches;
mod differences;
mod endpoints;
mod external_keys;
mod local;
mod logins;
mod mutants;
mod namespaces;
mod openbao;
mod retries;
mod settings;
mod stand_in;
mod tls;
