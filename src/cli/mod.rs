//! The commands, and the one place where adapters are chosen and put together.

pub mod program;

mod background;
mod check;
mod command;
mod dev;
mod keeper;
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
