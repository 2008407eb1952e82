//! AWS KMS as the keeper of the key-encryption key (KEK).
//!
//! AWS KMS encrypts with the newest key material of a KMS key, and its answer does not name that
//! material. So each version of the KEK is a KMS key of its own. A file lists the ARNs: line n is
//! version n.

mod failure;
pub mod keeper;
pub mod keys;
pub mod settings;
