//! Outbound: a KEK embedded in this process, its versions in one file. One node's: for `dev`,
//! for tests, and for single nodes that have no keeper.

pub mod file;
pub mod keeper;
