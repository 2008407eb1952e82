//! The contract suite, run against every keeper there is.
#![allow(
    missing_docs,
    dead_code,
    missing_debug_implementations,
    unreachable_pub,
    clippy::pedantic,
    clippy::restriction,
    clippy::disallowed_methods,
    reason = "tests"
)]

#[path = "../support/mod.rs"]
mod support;

mod batches;
mod endpoints;
mod local;
mod logins;
mod namespaces;
mod openbao;
mod retries;
mod stand_in;
mod tls;
