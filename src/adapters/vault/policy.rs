//! Writes the policies that an operator installs for this program, in the language of Vault and
//! `OpenBao`.

use std::fmt::Write as _;

use super::{
    capabilities::rules,
    key_path::{KeyPath, MountPath, Namespace},
};

/// The name of the role in the printed policies. `deploy/vault/setup.sh` uses the same name.
const ROLE: &str = "vault-kube-kms";

/// The settings that decide what the policy of the role must grant.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The key.
    pub key: KeyPath,
    /// The namespace of its mount.
    pub namespace: Namespace,
    /// The namespace of the login. The token's policies are in this namespace.
    pub auth_namespace: Namespace,
    /// `--require-enterprise`: the policy then grants reading the licence.
    pub require_enterprise: bool,
    /// The auth mount, if secret IDs are wrapped.
    pub wrapped_at: Option<MountPath>,
}

/// Returns the policy of the role. It grants exactly what `check` requires.
///
/// # Errors
/// Returns an error if the namespace of the key is not the login's namespace or below it, because
/// no policy can then grant access to the key.
pub fn policy(of: &Installation) -> Result<String, String> {
    let Installation { key, namespace, auth_namespace, .. } = of;
    let prefix = auth_namespace.way_to(namespace).ok_or_else(|| {
        format!(
            "a token of the namespace {auth_namespace} has no rights in {namespace}; log in at \
             {namespace} or above it, or add an identity group of {namespace} that has the policy \
             which --vault-auth-namespace={namespace} prints"
        )
    })?;
    let mut text = format!("# What vault-kube-kms needs on {key}, and nothing else.\n");
    if !auth_namespace.as_str().is_empty() {
        let _infallible = writeln!(text, "# Write it in the namespace {auth_namespace}.");
    }
    text.push_str(
        "# It does not grant `create`, because an encrypt request would then create a missing key. The policy\n\
                 # `default` lets tokens renew and revoke themselves.\n",
    );
    for rule in rules(&prefix, key, of.require_enterprise) {
        let Some(needed) = rule.needed else { continue };
        let path = rule.path;
        let _infallible =
            write!(text, "\npath \"{path}\" {{\n  capabilities = [\"{needed}\"]\n}}\n");
    }
    if let Some(mount) = &of.wrapped_at {
        text.push_str(
            "\n# Secret IDs are wrapped. The role needs no grant for that: a wrapping token may unwrap what it wraps.\n\
                         # The issuer of wrapped secret IDs is another identity, with a policy of its own:\n#\n",
        );
        for line in issuer(mount).lines() {
            let _infallible = writeln!(text, "{}", format!("# {line}").trim_end());
        }
    }
    Ok(text)
}

/// Returns the policy of the issuer of wrapped secret IDs. The issuer cannot read the secret IDs.
#[must_use]
pub fn issuer(mount: &MountPath) -> String {
    format!(
        "# Issues secret IDs of the role {ROLE}, each wrapped for ten minutes at most.\n\
         path \"auth/{mount}/role/{ROLE}/secret-id\" {{\n  \
         capabilities = [\"update\"]\n  \
         min_wrapping_ttl = \"1s\"\n  \
         max_wrapping_ttl = \"10m\"\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(namespace: &str, auth_namespace: &str) -> Result<String, String> {
        policy(&Installation {
            key: KeyPath::parse("transit/keys/k").unwrap(),
            namespace: Namespace::parse(namespace).unwrap(),
            auth_namespace: Namespace::parse(auth_namespace).unwrap(),
            require_enterprise: false,
            wrapped_at: None,
        })
    }

    #[test]
    fn paths_start_at_the_namespace_of_the_login() {
        for (namespace, auth_namespace, path) in [
            ("", "", "\"transit/keys/k\""),
            ("team/app", "team/app", "\"transit/keys/k\""),
            ("team/app", "team", "\"app/transit/keys/k\""),
            ("team/app", "root", "\"team/app/transit/keys/k\""),
        ] {
            let policy = of(namespace, auth_namespace).unwrap();
            assert!(policy.contains(path), "{namespace} {auth_namespace}: {policy}");
            let names_it = policy.contains(&format!("the namespace {auth_namespace}.\n"));
            assert_eq!(names_it, auth_namespace.starts_with("team"), "{policy}");
        }
    }

    #[test]
    fn rejects_a_login_outside_the_namespaces_above_the_key() {
        for (namespace, auth_namespace) in [("", "team"), ("team", "team/app"), ("teams", "team")] {
            let problem = of(namespace, auth_namespace).unwrap_err();
            assert!(problem.contains("has no rights in"), "{problem}");
        }
    }
}
