//! Outbound: the machine this process runs on.

pub mod bounded_file;
pub mod clock;
pub mod hardening;
pub mod notify;
pub mod place;
pub mod private_file;
pub mod reread;
pub mod sandbox;
pub mod watched_file;
