//! Tests the keeper on a PKCS#11 token over SoftHSM: the contract suite, and the binary that serves it.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::restriction,
    clippy::disallowed_methods,
    clippy::future_not_send,
    reason = "tests"
)]

mod commands;
mod contract;
mod faults;
mod pins;
mod served;
mod token;
