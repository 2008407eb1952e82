//! What the commands need from outside: one capability in each file.

pub mod objects;
pub mod plugin;
pub mod rewriting;
pub mod seeds;
pub mod source;
