//! Makes the files of a release: both programs, the archive and the packages of each, the bills of
//! materials, the known weaknesses, and the checksums.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    build::{Build, source_date},
    cache::sha256,
    package::Contents,
    run::{Failure, output, root, say, target},
    sbom,
};

/// The name of the provider and of its file.
pub(crate) const NAME: &str = PROVIDER.name;

/// A program of a release.
#[derive(Debug)]
pub(crate) struct Program {
    /// The name of its package in Cargo, of its file, and of its packages.
    pub(crate) name: &'static str,
    /// The folder of its manifest, from the root.
    pub(crate) crate_folder: &'static str,
    /// The folder of its files for packages, from `deploy`.
    pub(crate) deploy_folder: &'static str,
    /// Whether it is a service, with units and settings.
    pub(crate) is_service: bool,
}

/// The provider.
pub(crate) const PROVIDER: Program = Program {
    name: "vault-kube-kms",
    crate_folder: ".",
    deploy_folder: "package",
    is_service: true,
};

/// The program that reads etcd and API servers.
pub(crate) const CTL: Program = Program {
    name: "vault-kube-kmsctl",
    crate_folder: "kmsctl",
    deploy_folder: "package/kmsctl",
    is_service: false,
};

/// The known weaknesses.
const VEX: &str = "openvex.json";

impl Program {
    /// Returns the name of the bill of materials.
    pub(crate) fn bom(&self) -> String {
        format!("{}.cdx.json", self.name)
    }
}

/// Returns the version of both programs, such as `0.1.0`.
pub(crate) fn version() -> Result<String, Failure> {
    let manifest = fs::read_to_string(root().join("Cargo.toml"))?;
    let line = manifest.lines().find_map(|line| line.strip_prefix("version = \""));
    let version = line.and_then(|line| line.strip_suffix('"'));
    Ok(version.ok_or("Cargo.toml names no version")?.to_owned())
}

/// Builds both programs and writes all files to `target/release-files`. Returns the paths of the
/// programs: of [`PROVIDER`], and of [`CTL`].
pub(crate) fn files() -> Result<[PathBuf; 2], Failure> {
    let programs = [binary()?, ctl()?];
    let files = target().join("release-files");
    drop(fs::remove_dir_all(&files));
    fs::create_dir_all(&files)?;
    let (date, version) = (source_date(&root())?, version()?);
    fs::copy(root().join("supply-chain").join(VEX), files.join(VEX))?;
    let mut names = vec![VEX.to_owned()];
    for (of, program) in [PROVIDER, CTL].iter().zip(&programs) {
        fs::copy(program, files.join(of.name))?;
        let bom_name = of.bom();
        let bom = files.join(&bom_name);
        let parts = sbom::make(of, &date)?;
        sbom::check(of, &parts, program)?;
        fs::write(&bom, format!("{parts:#}\n"))?;
        let contents =
            Contents { of, program, bom: &bom, version: &version, date: &date, more_settings: "" };
        names.extend([of.name.to_owned(), bom_name]);
        names.extend(contents.write(&files)?);
    }
    names.sort();
    let mut sums = String::new();
    for name in names {
        let sum = sha256(&mut fs::File::open(files.join(&name))?)?;
        writeln!(sums, "{sum}  {name}")?;
    }
    fs::write(files.join("SHA256SUMS"), &sums)?;
    verify(&files)?;
    say(&format!("{}:\n{sums}", files.display()));
    Ok(programs)
}

/// Runs the commands of SECURITY.md that verify a release and need no network.
fn verify(files: &Path) -> Result<(), Failure> {
    let text = fs::read_to_string(root().join("SECURITY.md"))?;
    let (_, section) = text.split_once("\n## Verify a release\n").ok_or("no such section")?;
    let (_, block) = section.split_once("```console\n").ok_or("no console block")?;
    let (block, _) = block.split_once("```").ok_or("no end of the console block")?;
    let lines = block.lines().filter_map(|line| line.strip_prefix("$ "));
    let (here, elsewhere): (Vec<_>, Vec<_>) = lines.partition(|line| !line.starts_with("cargo "));
    if here.len() != 2 || elsewhere.len() != 1 {
        return Err("the commands in SECURITY.md have changed; adapt this task".into());
    }
    for line in here {
        output(Command::new("bash").current_dir(files).args(["-ec", line]))?;
    }
    Ok(())
}

/// Returns the shipped provider. Builds it in three minutes when it does not exist yet.
pub(crate) fn binary() -> Result<PathBuf, Failure> {
    say("an optimised build (three minutes, if there is none)");
    Build { sources: root(), target: target(), cargo_home: None }.run(&PROVIDER)
}

/// Returns the shipped `vault-kube-kmsctl`. Builds it when it does not exist yet.
fn ctl() -> Result<PathBuf, Failure> {
    say("an optimised build of vault-kube-kmsctl (three minutes, if there is none)");
    Build { sources: root(), target: target(), cargo_home: None }.run(&CTL)
}
