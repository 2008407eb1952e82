//! Programs that Debian's packages bring: installed as root on Debian, told by name elsewhere.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use crate::{
    run::{Failure, output, run, say},
    tools::missing,
};

/// A package, and the version that the tests were seen to pass with.
pub(crate) type Package = (&'static str, &'static str);

/// Where Debian's scripts ask whether a service may be started.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs those of `packages` that are not there, without starting a service. Returns `None`,
/// loudly, where that is not possible.
///
/// A security update takes the version before it from the registry. Then the newer one is
/// installed, and that is said.
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

/// Returns what `apt-get` is to install: `name=version`, or the name alone.
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

/// While this lives, Debian's scripts start no service.
struct NoServices {
    /// Whether the file is ours to remove.
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
