//! A keeper of the key-encryption key (KEK), and its settings.

pub mod device;
pub mod keeper;
pub mod settings;
