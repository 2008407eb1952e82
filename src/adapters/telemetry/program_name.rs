//! The name of this program, in the journal, in traces and on standard error.

use std::sync::OnceLock;

static NAME: OnceLock<&'static str> = OnceLock::new();

/// Sets the name. The first call counts.
pub fn set(name: &'static str) {
    let _earlier = NAME.set(name);
}

/// Returns the name that was set; without one, `vault-kube-kms`.
#[must_use]
pub fn get() -> &'static str {
    NAME.get().copied().unwrap_or("vault-kube-kms")
}
