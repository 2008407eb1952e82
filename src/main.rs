//! `vault-kube-kms`, not yet wired.

fn main() {}
