//! A text file that is a setting.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    bounded_file::{Kinds, read_in_time},
    watched_file::WatchedFile,
};
use crate::{domain::secret::Plaintext, ports::file::TextFile as _};

/// A text file that is parsed at the start and again at each [`ParsedFile::read`], so that a change
/// needs no restart. Not for secrets: the parsed value is not wiped.
#[derive(Clone, Debug)]
pub struct ParsedFile<T> {
    path: PathBuf,
    file: Arc<WatchedFile>,
    parse: fn(&str) -> Result<T, String>,
    at_start: T,
}

impl<T: Send + Sync> ParsedFile<T> {
    /// Reads and parses the file at `path`, of at most `most` bytes. Blocks for at most 5.5 s.
    ///
    /// # Errors
    /// The path, and why the file cannot be read, is not UTF-8 or is not accepted by `parse`.
    pub fn open(
        path: PathBuf,
        most: u64,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<Self, String> {
        let at_start = parsed(&path, read_in_time(&path, most, Kinds::Plain), parse)?;
        let file = Arc::new(WatchedFile::new(path.clone(), most));
        Ok(Self { path, file, parse, at_start })
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what the file held at the start.
    #[must_use]
    pub const fn at_start(&self) -> &T {
        &self.at_start
    }

    /// Reads and parses the file again. Ends in bounded time.
    ///
    /// # Errors
    /// The same as for [`ParsedFile::open`].
    pub async fn read(&self) -> Result<T, String> {
        parsed(&self.path, self.file.read().await, self.parse)
    }
}

fn parsed<T>(
    path: &Path,
    read: Result<Plaintext, String>,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, String> {
    let parsed = read.and_then(|bytes| match str::from_utf8(bytes.expose()) {
        Ok(text) => parse(text),
        Err(_not_utf8) => Err("is not UTF-8 text".to_owned()),
    });
    parsed.map_err(|problem| format!("{}: {problem}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn number(text: &str) -> Result<u32, String> {
        text.trim().parse().map_err(|_invalid| format!("{text:?} is not a number"))
    }

    #[tokio::test]
    async fn reads_the_changed_file_and_keeps_the_value_of_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        fs::write(&path, "1\n").unwrap();
        let file = ParsedFile::open(path.clone(), 10, number).unwrap();
        fs::write(&path, "2\n").unwrap();
        assert_eq!((*file.at_start(), file.read().await), (1, Ok(2)));
    }

    #[tokio::test]
    async fn names_the_path_and_the_problem() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        for (bytes, problem) in [
            (&b"one"[..], "\"one\" is not a number"),
            (b"\xff", "is not UTF-8 text"),
            (b"12345678901", "is larger than 10 bytes"),
        ] {
            fs::write(&path, "1").unwrap();
            let file = ParsedFile::open(path.clone(), 10, number).unwrap();
            fs::write(&path, bytes).unwrap();
            let expected = format!("{}: {problem}", path.display());
            assert_eq!(file.read().await, Err(expected.clone()));
            assert_eq!(ParsedFile::open(path.clone(), 10, number).unwrap_err(), expected);
        }
    }
}
