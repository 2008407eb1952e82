//! The policy that the role of this program needs, in the language of Vault and `OpenBao`.

use std::fmt::Write as _;

use super::{
    capabilities::rules,
    key_path::{KeyPath, Namespace},
};

/// Returns the policy for one key: what `check` asks for, and nothing else. `require_enterprise` adds
/// what `--require-enterprise` reads.
#[must_use]
pub fn policy(key: &KeyPath, namespace: &Namespace, require_enterprise: bool) -> String {
    let mut text = format!("# What vault-kube-kms needs on {key}, and nothing else.\n");
    if !namespace.as_str().is_empty() {
        let _infallible = writeln!(text, "# It belongs into the namespace {}.", namespace.as_str());
    }
    text.push_str(
        "# `create` is left out on purpose: with it a missing key would be made anew. Tokens renew and end\n\
         # themselves by the policy `default`.\n",
    );
    for (path, needed) in
        rules(key, require_enterprise).iter().filter_map(|rule| Some((&rule.path, rule.needed?)))
    {
        let _infallible =
            write!(text, "\npath \"{path}\" {{\n  capabilities = [\"{needed}\"]\n}}\n");
    }
    text
}
