//! Installs Debian packages as root on Debian. On other machines, names the missing packages.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use crate::{
    run::{Failure, output, run, say},
    tools::missing,
};

/// A package, and the version that the tests passed with.
pub(crate) type Package = (&'static str, &'static str);

/// The program that Debian's scripts run to learn whether a service may be started.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs the missing ones of `packages` without starting a service. Announces and returns `None`
/// when that is not possible.
///
/// A security update removes the previous version from the registry. Then the newer version is
/// installed and announced.
pub(crate) fn packages(packages: &[Package]) -> Result<Option<()>, Failure> {
    let lacking: Vec<_> = packages.iter().filter(|(name, _)| !installed(name)).collect();
    if lacking.is_empty() {
        return Ok(Some(()));
    }
    let names = lacking.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ");
    let root = output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !root || !Path::new("/usr/bin/apt-get").exists() {
        return missing("A DEBIAN PACKAGE", &format!("as root: apt-get install {names}"));
    }
    say(&format!("installing {names}"));
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    let chosen = lacking.iter().map(|(name, version)| chosen(name, version));
    let chosen = chosen.collect::<Result<Vec<_>, _>>()?;
    let _no_services = NoServices::begin()?;
    let mut apt = Command::new("apt-get");
    apt.args([
        "install",
        "-qq",
        "--yes",
        "--no-install-recommends",
        "-o",
        "DPkg::Lock::Timeout=600",
    ])
    .args(chosen);
    run(apt.env("DEBIAN_FRONTEND", "noninteractive").env_remove("NOTIFY_SOCKET"))?;
    Ok(Some(()))
}

fn installed(package: &str) -> bool {
    let status = output(Command::new("dpkg-query").args(["-W", "-f=${Status}", package]));
    status.is_ok_and(|status| status == "install ok installed")
}

/// Returns the argument of `apt-get install`: `name=version`. Uses the newest version when
/// `version` is no longer served.
fn chosen(name: &str, version: &str) -> Result<String, Failure> {
    let served = output(Command::new("apt-cache").args(["madison", name]))?;
    let mut versions = served.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim);
    if versions.clone().any(|one| one == version) {
        return Ok(format!("{name}={version}"));
    }
    let newest = versions.next().ok_or_else(|| format!("no registry serves the package {name}"))?;
    say(&format!("{name} {version} is not served any more; taking {newest}"));
    Ok(format!("{name}={newest}"))
}

/// Prevents Debian's scripts from starting services until it is dropped.
struct NoServices {
    /// Whether this value created the file and must remove it.
    ours: bool,
}

impl NoServices {
    fn begin() -> Result<Self, Failure> {
        let ours = !Path::new(POLICY).exists();
        if ours {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            drop(fs::remove_file(POLICY));
        }
    }
}
