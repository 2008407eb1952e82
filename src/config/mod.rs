//! Reads the command line, the environment and the file into [`settings::Settings`]. Reports all
//! errors at once, each with the flag's name and the origin of its value.

pub mod catalogue;
pub mod commands;
pub mod completions;
pub mod environment;
pub mod error;
mod file;
pub mod flags;
pub mod keepers;
pub mod manual;
pub mod reading;
pub mod settings;
pub mod sources;
