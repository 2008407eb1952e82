//! The commands. This is the only module that chooses adapters and connects them.

pub mod keeper;
pub mod program;

mod background;
mod check;
mod command;
mod dev;
mod panics;
mod provider;
mod report;
mod runtime;
mod sandbox;
mod serve;
mod statusz;
mod terminal;
mod version;
mod warnings;
mod watchdog;
