//! What an operator should know of a configuration that works.

use std::path::Path;

use super::finding::{Area, Finding};
use crate::{
    adapters::{
        grpc::address::SocketAddress,
        system::private_file::is_in_memory,
        vault::{bundle, tls::Trust},
    },
    config::settings::{KeeperSettings, Settings, VaultSettings},
};

/// Variables that other programs of this kind take a proxy from.
const PROXY_VARIABLES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// Everything of the kind, told at each start and by each check.
pub(super) fn of(settings: &Settings) -> Vec<Finding> {
    let ignored = settings.warnings.iter();
    let mut warnings: Vec<_> =
        ignored.map(|text| Finding::warn(Area::Configuration, text, "")).collect();
    warnings.extend(of_socket(&settings.listen));
    if !settings.sandbox {
        warnings.push(Finding::warn(
            Area::Sandbox,
            "--no-sandbox: this process is not restricted to the files, ports and system calls that it needs",
            "leave it out; where something fails in the sandbox, report it (docs/sandbox.md)",
        ));
    }
    match &settings.keeper {
        KeeperSettings::Vault(vault) => of_vault(vault, &mut warnings),
        KeeperSettings::Local(path) => warnings.push(Finding::warn(
            Area::Files,
            format!("--keeper=local: the key is in {} of this node alone", path.display()),
            "back it up: losing it loses the data",
        )),
    }
    warnings
}

/// kube-apiserver gives its seeds to whatever listens first.
fn of_socket(listen: &SocketAddress) -> Option<Finding> {
    let place = match listen {
        SocketAddress::File(path) => {
            let directory = path.parent()?;
            if mode_of(directory)? & 0o002 == 0 {
                return None;
            }
            format!("--listen-address: every user may write to {}", directory.display())
        }
        SocketAddress::Abstract(_) => {
            "--listen-address: every process in this network namespace may use an abstract name"
                .into()
        }
    };
    Some(Finding::warn(
        Area::Socket,
        format!("{place}, and one that listens there first is given seeds"),
        "use a path in a directory of mode 0750 that belongs to the provider's user",
    ))
}

fn of_vault(vault: &VaultSettings, warnings: &mut Vec<Finding>) {
    if !vault.client.is_tls() {
        warnings.push(Finding::warn(
            Area::Connection,
            "--vault-address is http://: seeds and tokens cross the network in clear",
            "use https://",
        ));
    } else if vault.client.tls.believes_anybody() {
        warnings.push(Finding::warn(
            Area::Connection,
            "--tls-skip-verify: anybody can pose as the keeper, and --tls-ca-file is not looked at",
            "leave the former out",
        ));
    }
    if let (Trust::Bundle(pem), Some(path)) = (&vault.client.tls.trust, &vault.ca_file) {
        for warning in bundle::read(pem).map(|bundle| bundle.warnings).unwrap_or_default() {
            let text = format!("--tls-ca-file: {}: {warning}", path.display());
            warnings.push(Finding::warn(Area::Files, text, "the other certificates count"));
        }
    }
    for name in PROXY_VARIABLES.iter().filter(|name| std::env::var_os(name).is_some()) {
        warnings.push(Finding::warn(
            Area::Configuration,
            format!("{name} is set and IGNORED: the keeper is always spoken to directly"),
            format!("unset {name}, or see that there is a direct way to the keeper"),
        ));
    }
    match &vault.approle.secret_id_path {
        Some(path) => of_secret_id(path, warnings),
        None => warnings.push(Finding::warn(
            Area::Files,
            "--approle-secret-id-path is not given: logins are made with the role ID alone",
            "give it, unless the role has bind_secret_id=false",
        )),
    }
    match &vault.approle.secret_id_cache {
        Some(cache) if !is_in_memory(cache) => warnings.push(Finding::warn(
            Area::Files,
            format!("--approle-secret-id-cache: {} is not on tmpfs", cache.display()),
            "put it on one, so that the secret ID is never on a disk",
        )),
        None if vault.approle.secret_id_wrapped => warnings.push(Finding::warn(
            Area::Files,
            "--approle-secret-id-wrapped: a wrapping token is good once, so a restart needs a new one",
            "give --approle-secret-id-cache to keep the secret ID over restarts of the process",
        )),
        _ => (),
    }
}

fn of_secret_id(path: &Path, warnings: &mut Vec<Finding>) {
    // Told, not refused: projected volumes are often 0644.
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

/// Whether a file is mounted by itself, as container engines do with single files: what is renamed
/// to its name outside never arrives.
fn is_mounted_by_itself(path: &Path) -> bool {
    let Ok(path) = std::fs::canonicalize(path) else { return false };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    is_mount_point(&mounts, &path)
}

/// Whether `path` is a mount point by `/proc/self/mountinfo`, whose fifth field it is, with blanks
/// in octal (proc(5)).
fn is_mount_point(mounts: &str, path: &Path) -> bool {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(|point| point.replace("\\040", " ")).any(|point| Path::new(&point) == path)
}

/// The permission bits of a file, where it can be looked at.
pub(super) fn mode_of(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|found| found.mode() & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_mounted_by_itself_is_told_from_one_in_a_mounted_directory() {
        let mounts = "36 35 98:0 / /run/secrets rw - ext4 /dev/sda1 rw\n\
                      37 35 98:0 /id /etc/kms/secret\\040id rw - ext4 /dev/sda1 rw\n";
        assert!(is_mount_point(mounts, Path::new("/etc/kms/secret id")));
        assert!(!is_mount_point(mounts, Path::new("/run/secrets/id")));
    }
}
