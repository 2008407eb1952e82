//! Stores a secret in a file that only the user of this process may read. Replaces the file in one
//! step.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rustix::fs::{Access, FsWord, statfs};

use super::{
    bounded_file::{self, Kinds, READ_TIMED_OUT, READ_TIMEOUT, ReadError},
    file_thread::FileThread,
    sandbox,
};
use crate::{adapters::atomic_file, domain::secret::Secret, ports::file::PrivateFile};

/// The largest file that is read, in bytes.
const SIZE_MAX: u64 = 65_536;

/// The number of the kernel for a file system in memory (statfs(2)).
const TMPFS: FsWord = 0x0102_1994;

/// Reports a write that did not end in time. The text follows the path of the file.
const WRITE_TIMED_OUT: &str = "cannot be written: the write did not end within 5 s; check the disk or the network file system";

/// A file of mode 0600 that belongs to the user of this process.
#[derive(Debug)]
pub struct OwnerOnlyFile {
    path: PathBuf,
    thread: FileThread,
}

impl OwnerOnlyFile {
    /// Returns the file at `path`. Its directory must exist.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, thread: FileThread::default() }
    }
}

/// Returns whether a file at `path` is on a file system in memory, so that its content is lost when
/// the machine stops. Waits for at most [`READ_TIMEOUT`] and a tenth more.
#[must_use]
pub fn is_in_memory(path: &Path) -> bool {
    let Some(directory) = path.parent().map(Path::to_owned) else { return false };
    let is_tmpfs = move |_until| {
        statfs(&directory).is_ok_and(|found: rustix::fs::StatFs| found.f_type == TMPFS)
    };
    bounded_file::in_time(READ_TIMEOUT, is_tmpfs).unwrap_or(false)
}

/// Reads the file. Returns `None` when there is none.
fn load(path: &Path) -> Result<Option<Secret>, String> {
    let text = match bounded_file::read_with_metadata(path, SIZE_MAX, Kinds::OwnerOnly) {
        Ok((bytes, _)) => std::str::from_utf8(bytes.expose()).map(str::to_owned),
        Err(ReadError::Missing(_)) => return Ok(None),
        Err(ReadError::Unreadable(problem)) => return Err(problem),
    };
    text.map(|text| Some(Secret::new(text))).map_err(|_source| "is not text; remove it".to_owned())
}

fn store(path: &Path, text: &Secret) -> Result<(), String> {
    let directory = path.parent().unwrap_or(path);
    let written = atomic_file::replace(path, text.expose().as_bytes());
    written.map_err(|error| match sandbox::refusal(directory, Access::WRITE_OK, &error) {
        Some(refusal) => refusal.to_owned(),
        None => format!("cannot be written: {error}"),
    })
}

#[async_trait]
impl PrivateFile for OwnerOnlyFile {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    async fn load(&self) -> Result<Option<Secret>, String> {
        let path = self.path.clone();
        let loaded = self.thread.run(move || load(&path)).await;
        loaded.unwrap_or_else(|| Err(READ_TIMED_OUT.to_owned()))
    }

    async fn store(&self, text: &Secret) -> Result<(), String> {
        let (path, text) = (self.path.clone(), text.clone());
        let stored = self.thread.run(move || store(&path, &text)).await;
        stored.unwrap_or_else(|| Err(WRITE_TIMED_OUT.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    };

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn loads_what_it_stored_and_keeps_it_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        assert!(load(&path).unwrap().is_none());
        for text in ["one", "two"] {
            store(&path, &Secret::new(text.to_owned())).unwrap();
            assert_eq!(load(&path).unwrap().unwrap().expose(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no draft is left behind");
    }

    #[test]
    fn rejects_a_file_that_other_users_may_have_changed_or_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        store(&path, &Secret::new("x".to_owned())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load(&path).unwrap_err().contains("0600"));
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(load(&link).unwrap_err().contains("plain file"));
        let directory_itself = load(directory.path()).unwrap_err();
        assert!(directory_itself.contains("plain file"), "{directory_itself}");
        let large = directory.path().join("large");
        store(&large, &Secret::new("x".repeat(65_537))).unwrap();
        assert!(load(&large).unwrap_err().contains("is larger than 65536 bytes"));
    }

    #[test]
    fn rejects_a_pipe_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
        assert!(load(&pipe).unwrap_err().contains("plain file"));
    }

    #[tokio::test]
    async fn gives_up_on_a_file_system_that_hangs() {
        let thread = FileThread::within(std::time::Duration::from_millis(20));
        let file = OwnerOnlyFile { path: PathBuf::from("cache"), thread };
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        assert_eq!(file.thread.run(move || hangs.recv()).await, None);
        assert_eq!(file.load().await.unwrap_err(), READ_TIMED_OUT);
        let stored = file.store(&Secret::new("x".to_owned())).await;
        assert_eq!(stored.unwrap_err(), WRITE_TIMED_OUT);
        drop(release);
    }

    /// One thread serves calls. A slow disk must not stop it.
    #[tokio::test]
    async fn stores_on_another_thread() {
        let directory = tempfile::tempdir().unwrap();
        let file = OwnerOnlyFile::new(directory.path().join("cache"));
        let text = Secret::new("one".to_owned());
        let mut storing = file.store(&text);
        assert!(storing.as_mut().now_or_never().is_none(), "the store runs on another thread");
        storing.await.unwrap();
        assert_eq!(file.load().await.unwrap().unwrap().expose(), "one");
    }
}
