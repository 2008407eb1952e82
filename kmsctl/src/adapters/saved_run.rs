//! The file in which `rewrite` keeps how far it is.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use vault_kube_kms::adapters::{
    atomic_file,
    system::bounded_file::{Kinds, read_if_any},
};

use crate::domain::{
    problem::{Problem, another_form},
    rewrite::Run,
};

/// The longest file that is read, in bytes. A run with all its failures is shorter.
const MAX_FILE: u64 = 8 << 20;

/// A file of one run. Only its owner may read it. It contains names and counts, and no value.
#[derive(Clone, Debug)]
pub struct SavedRun {
    path: PathBuf,
}

impl SavedRun {
    /// Returns the file at `path`, which need not exist yet.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Returns the saved run, or `None` if there is no file.
    ///
    /// # Errors
    /// When the file cannot be read, or is not a run.
    pub fn load(&self) -> Result<Option<Run>, Problem> {
        let read = read_if_any(&self.path, MAX_FILE, Kinds::Plain);
        let Some(text) = read.map_err(|why| self.problem(&why))? else { return Ok(None) };
        let run = serde_json::from_slice(text.expose()).map_err(|error| {
            let form = another_form(Some((error.line(), error.column())));
            self.problem(&format!("cannot be used: {form}"))
        })?;
        Ok(Some(run))
    }

    /// Replaces the file in one step.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, run: &Run) -> Result<(), Problem> {
        let written = serde_json::to_vec(run)
            .map_err(io::Error::from)
            .and_then(|text| atomic_file::replace(&self.path, &text));
        written.map_err(|error| self.problem(&format!("cannot be written: {error}")))
    }

    /// Removes the file, if there is one.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(&self) -> Result<(), Problem> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.problem(&format!("cannot be removed: {error}")))
            }
            _ => Ok(()),
        }
    }

    fn problem(&self, why: &str) -> Problem {
        Problem::new(
            "state-unusable",
            format!("the state file {} {why}", self.path.display()),
            "name another file with --state, or remove this one to begin again",
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::domain::rewrite::Demand;

    fn run() -> Run {
        Run::new(Demand {
            server: "https://localhost:6443".to_owned(),
            resources: vec!["secrets".to_owned()],
            namespace: None,
            selector: None,
            until_key_id: None,
            dry_run: false,
        })
    }

    #[test]
    fn keeps_a_run_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let saved = SavedRun::at(&path);
        assert_eq!(saved.load().unwrap(), None);
        saved.save(&run()).unwrap();
        saved.save(&run()).unwrap();
        assert_eq!(saved.load().unwrap(), Some(run()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        saved.remove().unwrap();
        saved.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn refuses_a_file_that_is_not_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        for text in ["", "{}", "[1]", "\u{0}"] {
            fs::write(&path, text).unwrap();
            assert_eq!(SavedRun::at(&path).load().unwrap_err().code, "state-unusable", "{text}");
        }
        let socket = dir.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (other, named) in [(dir.path(), "is a directory"), (&socket, "is a socket")] {
            let problem = SavedRun::at(other).load().unwrap_err();
            assert!(problem.cause.contains(named), "{problem}");
        }
        assert!(SavedRun::at(&dir.path().join("no/such/folder")).save(&run()).is_err());
    }
}
