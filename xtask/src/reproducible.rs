//! Checks that two builds in two folders, with two homes of Cargo, give the same bytes.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    build::{Build, cargo_home},
    release::{self, CTL, PROVIDER, Program},
    run::{Failure, output, root, run, say, target},
};

/// Makes the release here, builds the last commit in a clone, and compares the bytes of the
/// provider. `all` also compares the second program.
pub(crate) fn check(all: bool) -> Result<(), Failure> {
    let git = |args: &[&str]| output(Command::new("git").current_dir(root()).args(args));
    if !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty() {
        return Err("a clone lacks uncommitted changes; commit them first".into());
    }
    let here = release::files()?;
    let compared: &[Program] = if all { &[PROVIDER, CTL] } else { &[PROVIDER] };
    let place = tempfile::Builder::new().prefix("reproducible-").tempdir()?;
    let sources = place.path().join("a-folder/with-another-and-longer-name");
    fs::create_dir_all(&sources)?;
    run(Command::new("git").args(["clone", "--quiet", "--no-checkout"]).arg(root()).arg(&sources))?;
    let commit = git(&["rev-parse", "HEAD"])?;
    run(Command::new("git").current_dir(&sources).args(["checkout", "--quiet", commit.trim()]))?;
    say("the same build in another folder (six minutes)");
    let home = another_home(place.path())?;
    let build =
        Build { target: sources.join("target"), sources: sources.clone(), cargo_home: Some(home) };
    let mut folders = vec![root(), target(), cargo_home()?, place.path().to_owned()];
    folders.extend(std::env::var_os("HOME").map(Into::into));
    for (program, here) in compared.iter().zip(&here) {
        let there = build.run(program)?;
        compare(program, here, &there, &folders)?;
    }
    Ok(())
}

/// Compares the bytes of two builds of a program, and searches them for paths below `folders`.
fn compare(
    program: &Program,
    here: &Path,
    there: &Path,
    folders: &[PathBuf],
) -> Result<(), Failure> {
    let name = program.name;
    let (one, other) = (fs::read(here)?, fs::read(there)?);
    if let Some(at) = first_difference(&one, &other) {
        let kept = target().join("not-reproducible");
        fs::create_dir_all(&kept)?;
        fs::copy(here, kept.join("here"))?;
        fs::copy(there, kept.join("there"))?;
        return Err(format!(
            "two builds of {name} differ: {} and {} bytes, the first other one is at {at}; see {}",
            one.len(),
            other.len(),
            kept.display()
        )
        .into());
    }
    for folder in folders {
        if names(&one, folder) {
            return Err(format!("{name} names the builder's {}", folder.display()).into());
        }
    }
    say(&format!("{name}: {} bytes, equal in both folders; no path of this machine", one.len()));
    Ok(())
}

/// Makes a home of Cargo under another name, with the same packages.
fn another_home(place: &Path) -> Result<PathBuf, Failure> {
    let (usual, home) = (cargo_home()?, place.join("another-home-of-cargo"));
    fs::create_dir(&home)?;
    for name in ["registry", "config.toml"] {
        if usual.join(name).exists() {
            symlink(usual.join(name), home.join(name))?;
        }
    }
    Ok(home)
}

fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let pairs = one.iter().zip(other);
    let shorter = one.len().min(other.len());
    let differs = pairs.enumerate().find_map(|(at, (a, b))| (a != b).then_some(at));
    differs.or((one.len() != other.len()).then_some(shorter))
}

/// Returns whether `bytes` contain a path below `folder`.
fn names(bytes: &[u8], folder: &Path) -> bool {
    let needle = format!("{}/", folder.display());
    needle.len() > 2 && bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_found_wherever_it_is() {
        for (one, other, at) in [
            ("abc", "abc", None),
            ("abc", "abd", Some(2)),
            ("abc", "ab", Some(2)),
            ("", "a", Some(0)),
        ] {
            assert_eq!(first_difference(one.as_bytes(), other.as_bytes()), at);
        }
    }

    #[test]
    fn finds_a_path_of_the_builder() {
        let folder = Path::new("/home/me");
        assert!(names(b"panicked at /home/me/src/main.rs", folder));
        assert!(!names(b"panicked at /home/men/src/main.rs", folder));
        assert!(!names(b"/src/main.rs", folder));
    }
}
