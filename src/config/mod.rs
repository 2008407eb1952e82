//! From command line, environment and file to [`settings::Settings`]: every error at once, each
//! with the flag's name and where the value came from.

pub mod catalogue;
pub mod commands;
pub mod completions;
pub mod environment;
pub mod error;
pub mod flags;
pub mod keepers;
pub mod manual;
pub mod reading;
pub mod settings;
pub mod sources;
