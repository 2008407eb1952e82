//! Outbound: the machine this process runs on.

pub mod clock;
pub mod hardening;
