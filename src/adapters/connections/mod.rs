//! The open connections of a server: how many there may be, and which one ends when there are more.

pub(crate) mod seat;
pub(crate) mod table;
