//! Applies the module of `deploy/vault/terraform` to a real `OpenBao` with `OpenTofu`.

use std::path::Path;

use crate::{
    control_plane::Part,
    run::{Failure, run, say},
    test::suite,
};

/// Applies the module with `OpenTofu` and its provider for Vault. The first run builds both.
pub(crate) fn test(bao: Option<&Path>) -> Result<(), Failure> {
    let tofu = Part {
        module: "opentofu-1.12.6".to_owned(),
        ldflags: "-s -w".to_owned(),
        programs: &[("github.com/opentofu/opentofu/cmd/tofu", "tofu")],
        takes: "2 to 5 minutes",
        has_c: false,
    };
    let provider = Part {
        module: "vault-provider-3.3.1".to_owned(),
        ldflags: "-s -w".to_owned(),
        programs: &[("github.com/hashicorp/terraform-provider-vault", "terraform-provider-vault")],
        takes: "1 to 2 minutes",
        has_c: false,
    };
    let (tofu, provider) = (tofu.built()?, provider.built()?);
    say("Go: the module of OpenTofu, applied");
    let mut go = suite("tofu", "5m", bao);
    go.arg("-v").env("TOFU", tofu.join("tofu"));
    run(go.env("VAULT_PROVIDER", provider.join("terraform-provider-vault")))
}
