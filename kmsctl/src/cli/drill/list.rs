//! The list of the objects that cannot be read, written while they are found.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{
    fs::{self, File},
    io::{AsyncWriteExt as _, BufWriter},
};

use crate::domain::{drill::Reason, problem::Problem};

/// A file with one line for each object: the reason, a tab, and the key in etcd. It stays only when
/// the drill has a result.
#[derive(Debug)]
pub(super) struct UnreadableList {
    path: PathBuf,
    out: BufWriter<File>,
}

impl UnreadableList {
    /// Makes the file. Empties it when it exists.
    ///
    /// # Errors
    /// `list-not-written` with the cause.
    pub(super) async fn create(path: &Path) -> Result<Self, Problem> {
        let file = File::create(path).await.map_err(|error| not_written(path, &error))?;
        Ok(Self { path: path.to_owned(), out: BufWriter::new(file) })
    }

    /// Writes the line of the object with this key in etcd.
    ///
    /// # Errors
    /// `list-not-written` with the cause.
    pub(super) async fn add(&mut self, reason: Reason, key: &[u8]) -> Result<(), Problem> {
        let line = format!("{}\t{}\n", reason.as_str(), key.escape_ascii());
        let written = self.out.write_all(line.as_bytes()).await;
        written.map_err(|error| not_written(&self.path, &error))
    }

    /// Writes what is left when the drill is `done`, and removes the file otherwise.
    ///
    /// # Errors
    /// The problem of the drill, or `list-not-written` with the cause.
    pub(super) async fn end(mut self, done: Result<(), Problem>) -> Result<(), Problem> {
        let flushed = self.out.flush().await.map_err(|error| not_written(&self.path, &error));
        let ended = done.and(flushed);
        if ended.is_err() {
            // The problem of the drill says more than that of the removal.
            drop(fs::remove_file(&self.path).await);
        }
        ended
    }
}

fn not_written(path: &Path, error: &io::Error) -> Problem {
    Problem::new(
        "list-not-written",
        format!("cannot write {}: {error}", path.display()),
        "give a file in a folder that this user may write, on a disk with free space",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stays_only_when_the_drill_has_a_result() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unreadable.txt");
        for done in [Ok(()), Err(Problem::new("keeper-sealed", "cause", "remedy"))] {
            let is_done = done.is_ok();
            let mut list = UnreadableList::create(&path).await.unwrap();
            list.add(Reason::VersionMissing, b"/registry/secrets/a/b").await.unwrap();
            list.add(Reason::OtherKey, b"/registry/secrets/a/\n").await.unwrap();
            assert_eq!(list.end(done).await.is_ok(), is_done);
            assert_eq!(path.exists(), is_done);
            if is_done {
                assert_eq!(
                    fs::read_to_string(&path).await.unwrap(),
                    "version-missing\t/registry/secrets/a/b\nother-key\t/registry/secrets/a/\\n\n"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent/unreadable.txt");
        let problem = UnreadableList::create(&path).await.unwrap_err();
        assert_eq!(problem.code, "list-not-written");
        assert!(problem.cause.contains("unreadable.txt"), "{}", problem.cause);
    }
}
