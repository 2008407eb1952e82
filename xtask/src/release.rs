//! Makes the files of a release: the program, the archive and the packages with it, the bill of
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

/// The name of the program and of its file.
pub(crate) const NAME: &str = "vault-kube-kms";

/// Returns the version of the program, such as `0.1.0`.
pub(crate) fn version() -> Result<String, Failure> {
    let manifest = fs::read_to_string(root().join("Cargo.toml"))?;
    let line = manifest.lines().find_map(|line| line.strip_prefix("version = \""));
    let version = line.and_then(|line| line.strip_suffix('"'));
    Ok(version.ok_or("Cargo.toml names no version")?.to_owned())
}

/// Builds the program and writes all files to `target/release-files`. Returns the path of the
/// program.
pub(crate) fn files() -> Result<PathBuf, Failure> {
    let program = binary()?;
    let files = target().join("release-files");
    drop(fs::remove_dir_all(&files));
    fs::create_dir_all(&files)?;
    fs::copy(&program, files.join(NAME))?;
    let date = source_date(&root())?;
    let bom = files.join(format!("{NAME}.cdx.json"));
    let parts = sbom::make(&date)?;
    sbom::check(&parts, &program)?;
    fs::write(&bom, format!("{parts:#}\n"))?;
    fs::copy(root().join("supply-chain/openvex.json"), files.join("openvex.json"))?;
    let version = version()?;
    let contents = Contents {
        program: &program,
        bom: &bom,
        version: &version,
        date: &date,
        more_settings: "",
    };
    let mut names = vec![NAME.to_owned(), format!("{NAME}.cdx.json"), "openvex.json".to_owned()];
    names.extend(contents.write(&files)?);
    let mut sums = String::new();
    for name in names {
        let sum = sha256(&mut fs::File::open(files.join(&name))?)?;
        writeln!(sums, "{sum}  {name}")?;
    }
    fs::write(files.join("SHA256SUMS"), &sums)?;
    verify(&files)?;
    say(&format!("{}:\n{sums}", files.display()));
    Ok(program)
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

/// Returns the shipped program. Builds it in three minutes when it does not exist yet.
pub(crate) fn binary() -> Result<PathBuf, Failure> {
    say("an optimised build (three minutes, if there is none)");
    Build { sources: root(), target: target(), cargo_home: None }.run()
}
