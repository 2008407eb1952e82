//! The rules of a KMS v2 provider: pure, with no I/O, no clock, no runtime and no wire format.
//!
//! A unit test can run all of this with plain values. The domain reaches the outside only through a
//! port (`crate::ports`).
#![warn(clippy::arithmetic_side_effects)]

pub mod envelope;
pub mod error;
pub mod health;
pub mod key;
pub mod key_id;
pub mod observer;
pub mod rotation;
pub mod secret;
pub mod service;
pub mod time;
pub mod view;
pub mod watch;

mod corrected_clock;
mod knowledge;
mod proof;
mod refresh;

#[cfg(test)]
#[path = "formats_tests.rs"]
mod formats;
