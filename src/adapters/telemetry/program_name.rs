//! The name that this program has in the journal, in traces and on standard error.

use std::sync::OnceLock;

static NAME: OnceLock<&'static str> = OnceLock::new();

/// Sets the name. Only the first call has an effect.
pub fn set(name: &'static str) {
    let _earlier = NAME.set(name);
}

/// Returns the name that was set, or `vault-kube-kms` when none was set.
#[must_use]
pub fn get() -> &'static str {
    NAME.get().copied().unwrap_or("vault-kube-kms")
}
