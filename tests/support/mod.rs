//! What the suites share: servers to test against, and a keeper that is wired to one.

pub mod admin;
pub mod openbao;
pub mod provider;
pub mod stand_in;
pub mod transit;
