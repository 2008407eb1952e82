//! The parts that suites share: servers, and a keeper that is connected to one.
#![allow(
    dead_code,
    missing_debug_implementations,
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "each suite uses a part of it"
)]

pub mod admin;
pub mod gate;
pub mod openbao;
pub mod provider;
pub mod stand_in;
pub mod transit;
