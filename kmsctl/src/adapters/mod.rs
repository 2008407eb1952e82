//! The ports over real systems. Adapters do not name each other.
