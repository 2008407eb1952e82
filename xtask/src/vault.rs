//! Builds HashiCorp Vault for the tests from the Go module proxy. `tests/vault` has the source of a
//! small server, and the requirements of each release with their checksums.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cache,
    run::{Failure, can_run, root, run, say},
};

/// The releases that are tested. The usual run of the tests has the first one.
pub(crate) const RELEASES: [&str; 3] = ["1.21.2", "1.19.5", "1.12.0"];

/// The server that the tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// `OpenBao`.
    OpenBao,
    /// HashiCorp Vault of this release.
    Vault(&'static str),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenBao => f.write_str("OpenBao"),
            Self::Vault(release) => write!(f, "HashiCorp Vault {release}"),
        }
    }
}

impl Server {
    /// Parses the value of `--keeper`: `openbao`, or `vault-` with a release or its first two
    /// numbers.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let names = |release: &&str| {
            let minor = release.rsplit_once('.').map_or(*release, |(minor, _)| minor);
            text.strip_prefix("vault-").is_some_and(|wanted| wanted == *release || wanted == minor)
        };
        if text == "openbao" {
            return Ok(Self::OpenBao);
        }
        RELEASES.into_iter().find(names).map(Self::Vault).ok_or_else(|| {
            format!("--keeper is openbao or one of vault-{}", RELEASES.join(", vault-")).into()
        })
    }

    /// Returns whether the server enforces associated data. Vault does since 1.13.
    pub(crate) fn enforces_associated_data(self) -> bool {
        self != Self::Vault("1.12.0")
    }

    /// Returns the program of the server, which is built once. `None` for `OpenBao`.
    pub(crate) fn program(self) -> Result<Option<PathBuf>, Failure> {
        match self {
            Self::OpenBao => Ok(None),
            Self::Vault(release) => built(release).map(Some),
        }
    }
}

fn built(release: &str) -> Result<PathBuf, Failure> {
    let module = root().join("tests/vault");
    let mut sources: Vec<_> = fs::read_dir(&module)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "go"))
        .collect();
    sources.sort();
    sources.extend(["mod", "sum"].map(|end| module.join(format!("vault-{release}.{end}"))));
    let read = |path: &PathBuf| {
        fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let recipe = sources.iter().map(read).collect::<Result<String, _>>()?;
    let home = cache::tool(&format!("vault-{release}"), &recipe, |draft| {
        if !can_run(Command::new("go").arg("version")) {
            return Err("HashiCorp Vault is built with Go; install Go 1.26".into());
        }
        say(&format!("building HashiCorp Vault {release} (once; 6 to 7 minutes)"));
        build(&module, release, &draft.join("vault"))
    })?;
    Ok(home.join("vault"))
}

fn build(module: &Path, release: &str, program: &Path) -> Result<(), Failure> {
    // The module of Vault 1.12.0 names another version, and takes it from the `sdk`.
    let version = "github.com/hashicorp/vault/sdk/version.Version";
    let mut go = Command::new("go");
    go.current_dir(module)
        .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false"])
        .arg(format!("-ldflags=-s -w -X {version}={release} -X {version}Prerelease="))
        .arg(format!("-modfile=vault-{release}.mod"))
        .arg("-o")
        .arg(program)
        .arg(".")
        // The program is static, so no C compiler is needed.
        .env("CGO_ENABLED", "0");
    run(&mut go)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_server_by_its_release_or_minor_release() {
        assert_eq!(Server::parse("openbao").unwrap(), Server::OpenBao);
        assert_eq!(Server::parse("vault-1.21").unwrap(), Server::Vault("1.21.2"));
        assert_eq!(Server::parse("vault-1.19").unwrap(), Server::Vault("1.19.5"));
        assert_eq!(Server::parse("vault-1.12.0").unwrap(), Server::Vault("1.12.0"));
        assert!(Server::parse("vault-1").is_err());
        assert!(Server::parse("vault").is_err());
    }
}
