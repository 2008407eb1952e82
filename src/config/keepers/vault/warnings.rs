//! Warnings about settings of Vault that are valid.

use std::path::Path;

use crate::{
    adapters::{
        system::{
            bounded_file::{READ_TIMEOUT, in_time},
            place::{is_mounted_by_itself, mode_of},
            private_file::is_in_memory,
        },
        vault::{
            bundle,
            client_pair::PairFile,
            login::{
                approle::AppRoleSettings, credential_file::CredentialPath, jwt::JwtSettings,
                method::MethodSettings,
            },
            settings::VaultSettings,
            tls::Trust,
        },
    },
    ports::finding::{Area, Finding},
};

/// The variables that other programs read a proxy from. This program ignores them.
const PROXY_VARIABLES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// Where a Pod finds the token of its service account.
const POD_TOKENS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Returns the warnings.
pub(super) fn of(vault: &VaultSettings) -> Vec<Finding> {
    let mut warnings = Vec::new();
    if !vault.servers.is_tls() {
        warnings.push(Finding::warn(
            Area::Connection,
            "--vault-address is http://: seeds and tokens cross the network in clear",
            "use https://",
        ));
    } else if vault.servers.tls.skips_verification() {
        warnings.push(Finding::warn(
            Area::Connection,
            "--tls-skip-verify: any server can pose as the keeper, and --tls-ca-file is not read",
            "leave out --tls-skip-verify",
        ));
    }
    if let (Trust::Bundle(pem), Some(path)) = (&vault.servers.tls.trust, &vault.ca_file) {
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
    for flag in &vault.login.ignored {
        warnings.push(Finding::warn(
            Area::Configuration,
            format!("--{flag} is given and not used with this --auth-method"),
            "leave it out, or correct --auth-method",
        ));
    }
    if let Some(pair) = &vault.client_pair {
        let password = pair.password.as_ref().map(|_| (PairFile::Password, "password"));
        for (file, what) in [(PairFile::Key, "private key")].into_iter().chain(password) {
            let (flag, path) = pair.named(file);
            add_file_warnings(flag, what, path, true, &mut warnings);
        }
    }
    for CredentialPath { flag, what, path, is_secret, .. } in vault.login.method.files() {
        add_file_warnings(flag, what, &path, is_secret, &mut warnings);
    }
    match &vault.login.method {
        MethodSettings::AppRole(settings) => add_approle_warnings(settings, &mut warnings),
        MethodSettings::Kubernetes(settings) => add_own_cluster_warning(settings, &mut warnings),
        MethodSettings::Jwt(_)
        | MethodSettings::Cert(_)
        | MethodSettings::Spiffe(_)
        | MethodSettings::TokenFile(_) => (),
    }
    warnings
}

fn add_approle_warnings(settings: &AppRoleSettings, warnings: &mut Vec<Finding>) {
    if settings.secret_id_path.is_none() {
        warnings.push(Finding::warn(
            Area::Files,
            "--approle-secret-id-path is not given: logins use only the role ID",
            "give it, unless the role has bind_secret_id=false",
        ));
    }
    match &settings.secret_id_cache {
        Some(cache) if !is_in_memory(cache) => warnings.push(Finding::warn(
            Area::Files,
            format!("--approle-secret-id-cache: {} is not on tmpfs", cache.display()),
            "put the file on tmpfs, so that the secret ID is never on a disk",
        )),
        None if settings.secret_id_wrapped => warnings.push(Finding::warn(
            Area::Files,
            "--approle-secret-id-wrapped: a wrapping token works only once, so a restart needs a new one",
            "give --approle-secret-id-cache to keep the secret ID over restarts of the process",
        )),
        _ => (),
    }
}

/// Warns if the API server that reviews the login may be the one that needs this provider. A Pod's
/// own token is of the cluster in which the Pod runs.
fn add_own_cluster_warning(settings: &JwtSettings, warnings: &mut Vec<Finding>) {
    if settings.path.starts_with(POD_TOKENS) {
        warnings.push(Finding::warn(
            Area::Login,
            format!(
                "--kubernetes-jwt-path: {} is the token of this Pod, so the API server of this cluster reviews the login",
                settings.path.display()
            ),
            "if that API server uses this provider, it cannot start again after a full stop: use --auth-method=jwt with the issuer's public keys in jwt_validation_pubkeys, or another method",
        ));
    }
}

/// Adds the warnings about the file at `path`, which `flag` names and which holds a `what`.
fn add_file_warnings(
    flag: &str,
    what: &str,
    path: &Path,
    is_secret: bool,
    warnings: &mut Vec<Finding>,
) {
    let of = path.to_owned();
    let look = move |_until| (mode_of(&of), is_mounted_by_itself(&of));
    let Ok((mode, is_mounted)) = in_time(READ_TIMEOUT, look) else {
        warnings.push(Finding::warn(
            Area::Files,
            format!("--{flag}: {} could not be examined within 5 s", path.display()),
            "check its file system",
        ));
        return;
    };
    // This is a warning and not an error, because projected volumes often have mode 0644.
    if let Some(mode) = mode.filter(|mode| is_secret && mode & 0o077 != 0) {
        warnings.push(Finding::warn(
            Area::Files,
            format!("--{flag}: group or others can read {} ({mode:04o})", path.display()),
            "chmod it to 0600",
        ));
    }
    if is_mounted {
        warnings.push(Finding::warn(
            Area::Files,
            format!("{} is a mount of its own: a new {what} never arrives there", path.display()),
            "mount its directory instead",
        ));
    }
}
