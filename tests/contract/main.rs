//! The contract suite, run against every keeper there is.
#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::pedantic,
    clippy::restriction,
    reason = "tests"
)]

#[path = "../support/mod.rs"]
mod support;

mod local;
mod openbao;
mod stand_in;
