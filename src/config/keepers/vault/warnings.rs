//! Warnings about settings of Vault that are valid.

use std::path::Path;

use crate::{
    adapters::{
        system::{
            place::{is_mounted_by_itself, mode_of},
            private_file::is_in_memory,
        },
        vault::{bundle, settings::VaultSettings, tls::Trust},
    },
    ports::finding::{Area, Finding},
};

/// The variables that other programs read a proxy from. This program ignores them.
const PROXY_VARIABLES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// Returns the warnings.
pub(super) fn of(vault: &VaultSettings) -> Vec<Finding> {
    let mut warnings = Vec::new();
    if !vault.client.is_tls() {
        warnings.push(Finding::warn(
            Area::Connection,
            "--vault-address is http://: seeds and tokens cross the network in clear",
            "use https://",
        ));
    } else if vault.client.tls.skips_verification() {
        warnings.push(Finding::warn(
            Area::Connection,
            "--tls-skip-verify: any server can pose as the keeper, and --tls-ca-file is not read",
            "leave out --tls-skip-verify",
        ));
    }
    if let (Trust::Bundle(pem), Some(path)) = (&vault.client.tls.trust, &vault.ca_file) {
        for warning in bundle::read(pem).map(|bundle| bundle.warnings).unwrap_or_default() {
            let text = format!("--tls-ca-file: {}: {warning}", path.display());
            warnings.push(Finding::warn(
                Area::Files,
                text,
                "the other certificates are used; renew or remove this one",
            ));
        }
    }
    for name in PROXY_VARIABLES.iter().filter(|name| std::env::var_os(name).is_some()) {
        warnings.push(Finding::warn(
            Area::Configuration,
            format!("{name} is set and IGNORED: connections to the keeper are always direct"),
            format!("unset {name}, and make sure that the keeper can be reached without a proxy"),
        ));
    }
    match &vault.approle.secret_id_path {
        Some(path) => add_secret_id_warnings(path, &mut warnings),
        None => warnings.push(Finding::warn(
            Area::Files,
            "--approle-secret-id-path is not given: logins use only the role ID",
            "give it, unless the role has bind_secret_id=false",
        )),
    }
    match &vault.approle.secret_id_cache {
        Some(cache) if !is_in_memory(cache) => warnings.push(Finding::warn(
            Area::Files,
            format!("--approle-secret-id-cache: {} is not on tmpfs", cache.display()),
            "put the file on tmpfs, so that the secret ID is never on a disk",
        )),
        None if vault.approle.secret_id_wrapped => warnings.push(Finding::warn(
            Area::Files,
            "--approle-secret-id-wrapped: a wrapping token works only once, so a restart needs a new one",
            "give --approle-secret-id-cache to keep the secret ID over restarts of the process",
        )),
        _ => (),
    }
    warnings
}

fn add_secret_id_warnings(path: &Path, warnings: &mut Vec<Finding>) {
    // This is a warning and not an error, because projected volumes often have mode 0644.
    if let Some(mode) = mode_of(path).filter(|mode| mode & 0o077 != 0) {
        warnings.push(Finding::warn(
            Area::Files,
            format!(
                "--approle-secret-id-path: group or others can read {} ({mode:04o})",
                path.display()
            ),
            "chmod it to 0600",
        ));
    }
    if is_mounted_by_itself(path) {
        warnings.push(Finding::warn(
            Area::Files,
            format!(
                "{} is a mount of its own: a new secret ID never arrives there",
                path.display()
            ),
            "mount its directory instead",
        ));
    }
}
