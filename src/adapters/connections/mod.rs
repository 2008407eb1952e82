//! Bounds the open connections of a server, and chooses the connection to close when there are too
//! many.

pub(crate) mod slot;
pub(crate) mod table;
