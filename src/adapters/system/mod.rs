//! Outbound: files, clocks, memory, systemd and the sandbox of the machine.

pub mod bounded_file;
pub mod clock;
pub mod file_thread;
mod followed_path;
pub mod hardening;
pub mod notify;
pub mod parsed_file;
pub mod place;
pub mod private_file;
pub mod reread;
pub mod sandbox;
pub mod watched_file;
