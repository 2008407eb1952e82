//! Outbound: a KEK that is embedded in this process, with its versions in one file on one node. For
//! `dev`, for tests, and for single nodes without a keeper.

pub mod file;
pub mod keeper;
