//! Runs the optimised build. It gives the same bytes in every folder, and the program contains no
//! path of the builder's machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    release::Program,
    run::{Failure, output, run},
    tools,
};

/// Environment variables that would change the bytes. The build removes them.
const LEFT_OUT: &[&str] =
    &["RUSTFLAGS", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "RUSTC_WRAPPER", "RUSTC_BOOTSTRAP"];

/// Prefixes of further variables that the build removes.
const LEFT_OUT_FROM: &[&str] =
    &["CARGO_PROFILE_RELEASE_", "CARGO_BUILD_", "CARGO_TARGET_", "AWS_LC_", "CFLAGS_"];

/// The folders that a build reads and writes. The built program must not contain their paths.
pub(crate) struct Build {
    /// The repository.
    pub(crate) sources: PathBuf,
    /// Cargo's target directory.
    pub(crate) target: PathBuf,
    /// Cargo's home. `None` means the usual home.
    pub(crate) cargo_home: Option<PathBuf>,
}

impl Build {
    /// Builds a program and returns its path. A call builds one program, because Cargo would give
    /// the crates of two programs the features that either needs.
    pub(crate) fn run(&self, program: &Program) -> Result<PathBuf, Failure> {
        let auditable = tools::cargo("cargo-auditable", "0.7.7")?;
        let tools = auditable.parent().ok_or("cargo-auditable is in no folder")?;
        let mut path = vec![tools.to_owned()];
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        self.fetch()?;
        let mut cargo = Command::new(env!("CARGO"));
        let leaves_out = |name: &str| {
            LEFT_OUT.contains(&name) || LEFT_OUT_FROM.iter().any(|start| name.starts_with(start))
        };
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(leaves_out) {
                cargo.env_remove(name);
            }
        }
        cargo
            .current_dir(&self.sources)
            .args(["build", "--locked", "--release", "--package", program.name])
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags()?.join("\u{1f}"))
            .env("SOURCE_DATE_EPOCH", source_date(&self.sources)?)
            // These are the variables that `cargo auditable build` sets. The wrapper has only a
            // name and no path, because Cargo derives the names of symbols from the path of the
            // wrapper.
            .env("PATH", env::join_paths(path)?)
            .env("RUSTC_WORKSPACE_WRAPPER", "cargo-auditable")
            .env(
                "CARGO_AUDITABLE_ORIG_ARGS",
                r#"{"offline":false,"locked":true,"frozen":false,"config":[]}"#,
            );
        if let Some(home) = &self.cargo_home {
            cargo.env("CARGO_HOME", home);
        }
        run(&mut cargo)?;
        Ok(self.target.join("release").join(program.name))
    }

    /// Fetches the packages, so that their folders exist when `rustflags` lists them.
    fn fetch(&self) -> Result<(), Failure> {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(&self.sources).args(["fetch", "--locked", "--quiet"]);
        if let Some(home) = &self.cargo_home {
            cargo.env("CARGO_HOME", home);
        }
        run(&mut cargo)
    }

    /// Returns a flag for each folder of this build that replaces its path. rustc uses the last
    /// flag that matches a path.
    fn rustflags(&self) -> Result<Vec<String>, Failure> {
        let rust = output(Command::new("rustc").current_dir(&self.sources).arg("-vV"))?;
        let commit = rust
            .lines()
            .find_map(|line| line.strip_prefix("commit-hash: "))
            .ok_or("rustc does not name its commit")?;
        let sysroot =
            output(Command::new("rustc").current_dir(&self.sources).args(["--print", "sysroot"]))?;
        let home = self.cargo_home.clone().map_or_else(cargo_home, Ok)?;
        let mut folders = vec![
            (Path::new(sysroot.trim()).join("lib/rustlib/src/rust"), format!("/rustc/{commit}")),
            (self.sources.clone(), "/src".to_owned()),
            (self.target.clone(), "/src/target".to_owned()),
            (home.clone(), "/cargo".to_owned()),
        ];
        // Each registry or mirror has a folder that is named after its address.
        for registry in fs::read_dir(home.join("registry/src")).into_iter().flatten() {
            folders.push((registry?.path(), "/cargo".to_owned()));
        }
        let flags = folders.iter().map(|(folder, instead)| {
            let folder = folder.to_str().ok_or("the path of a folder is not UTF-8")?;
            Ok(format!("--remap-path-prefix={folder}={instead}"))
        });
        flags.collect()
    }
}

/// Returns Cargo's usual home.
pub(crate) fn cargo_home() -> Result<PathBuf, Failure> {
    let given = env::var_os("CARGO_HOME").map(PathBuf::from);
    let usual = || Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"));
    given.or_else(usual).ok_or_else(|| "neither CARGO_HOME nor HOME is set".into())
}

/// Returns `SOURCE_DATE_EPOCH`, or else the time of the last commit, in seconds since 1970.
pub(crate) fn source_date(sources: &Path) -> Result<String, Failure> {
    if let Ok(date) = env::var("SOURCE_DATE_EPOCH") {
        return Ok(date);
    }
    let date =
        output(Command::new("git").current_dir(sources).args(["log", "-1", "--format=%ct"]))?;
    Ok(date.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::root;

    #[test]
    fn replaces_each_folder_and_the_innermost_one_last() {
        let home = tempfile::tempdir().unwrap();
        let registry = home.path().join("registry/src/mirror-1");
        fs::create_dir_all(&registry).unwrap();
        let (sources, target) = (root(), PathBuf::from("/elsewhere"));
        let cargo_home = Some(home.path().to_owned());
        let flags = Build { sources, target, cargo_home }.rustflags().unwrap();
        let place = |folder: &Path, instead: &str| {
            let flag = format!("--remap-path-prefix={}={instead}", folder.display());
            flags.iter().position(|given| *given == flag).unwrap_or_else(|| panic!("{flags:?}"))
        };
        // rustc uses the last flag that matches.
        assert!(place(home.path(), "/cargo") < place(&registry, "/cargo"));
        assert!(place(&root(), "/src") < place(Path::new("/elsewhere"), "/src/target"));
        assert_eq!(flags.len(), 5, "{flags:?}");
    }
}
