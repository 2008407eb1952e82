//! What this program calls itself.

/// Name, version and commit.
pub(super) const VERSION: &str = concat!(
    "vault-kube-kms ",
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("VAULT_KUBE_KMS_COMMIT"),
    ")"
);
