//! Outbound: wraps and unwraps with a KEK on a PKCS#11 token: an HSM, a smart card, or `SoftHSM`.
//!
//! Every call into the library runs on a blocking thread and holds a permit (`pool.rs`). There are as
//! many permits as sessions. Nothing else calls the library, so the holder of all permits may
//! finalise it.

#![cfg(feature = "pkcs11")]

mod check;
mod cipher;
pub mod keeper;
mod key_lookup;
mod key_objects;
mod library;
mod login;
mod meaning;
pub mod object_id;
pub mod operator;
mod pin;
mod pool;
pub mod settings;
