//! Values and rules: what a stored object says about its encryption, and where a rotation is.
//! Nothing here does I/O.

pub mod conformance;
pub mod drill;
pub mod drill_report;
pub mod envelope;
pub mod finding;
pub mod judgement;
pub mod keeper_facts;
pub mod needs;
pub mod node;
pub mod object;
pub mod opening;
pub mod place;
pub mod problem;
pub mod proof;
pub mod resource;
pub mod rewrite;
pub mod rotation;
pub mod stored;
pub mod tally;
