//! Values and rules: what a stored object says about its encryption. Nothing here does I/O.

pub mod envelope;
pub mod place;
pub mod problem;
pub mod stored;
