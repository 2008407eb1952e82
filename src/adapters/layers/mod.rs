//! Outbound: what every keeper gets, whoever keeps. Each layer implements the port it wraps.

pub mod batch;
pub mod coalesce;
pub mod deadline;

#[cfg(test)]
mod held;
