//! A file that an operator may replace at any moment: by a rename to its name, by exchanging a
//! symbolic link, or by writing in place. Polls the state of the file, which works on every file
//! system.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::time::sleep;

use super::{
    bounded_file::{self, Kinds, READ_TIMED_OUT, deadline_after},
    file_thread::FileThread,
};
use crate::{domain::secret::Plaintext, ports::file::TextFile};

/// How often the state of the file is polled.
const POLL_EVERY: Duration = Duration::from_secs(2);

/// A file that was modified this recently may still be written to.
const SETTLED_AFTER: Duration = Duration::from_millis(100);

/// How often a read is repeated while the file is being written.
const TRIES: u32 = 20;

/// Identifies a state of a file: device, inode, seconds and nanoseconds of its change time, and
/// size.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// A plain file of bounded size.
#[derive(Debug)]
pub struct WatchedFile {
    path: PathBuf,
    most: u64,
    /// The state of the file when it was last read.
    read: Mutex<Stamp>,
    thread: FileThread,
}

impl WatchedFile {
    /// Returns the file at `path`, of at most `most` bytes.
    #[must_use]
    pub fn new(path: PathBuf, most: u64) -> Self {
        Self { path, most, read: Mutex::new(None), thread: FileThread::default() }
    }

    /// Runs `work` on a thread that may block. Returns `None` when it does not end in time.
    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Option<T> {
        let path = self.path.clone();
        self.thread.run(move || work(&path)).await
    }

    async fn stamp(&self) -> Stamp {
        self.on_thread(stamp).await.flatten()
    }
}

/// Returns the state of the file at `path`. Follows links. Returns `None` when there is no file.
fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.ctime(), found.ctime_nsec(), found.size()))
}

/// The result of one read attempt.
struct Attempt {
    stamp: Stamp,
    read: Result<Plaintext, String>,
    /// Whether the file did not change during the read, and was not modified within
    /// [`SETTLED_AFTER`] before.
    is_settled: bool,
}

fn attempt(path: &Path, most: u64, until: Instant) -> Attempt {
    let before = stamp(path);
    let read = bounded_file::read(path, most, Kinds::Plain, until);
    let modified = fs::metadata(path).and_then(|found| found.modified());
    let was_just_modified =
        modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < SETTLED_AFTER));
    Attempt { stamp: before, read, is_settled: !was_just_modified && stamp(path) == before }
}

#[async_trait]
impl TextFile for WatchedFile {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    async fn read(&self) -> Result<Plaintext, String> {
        let (most, limit) = (self.most, self.thread.limit());
        for _ in 0..TRIES {
            let found =
                self.on_thread(move |path| attempt(path, most, deadline_after(limit))).await;
            let stamp = found.as_ref().and_then(|found| found.stamp);
            *self.read.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
            match found {
                Some(Attempt { is_settled: true, read, .. }) => return read,
                Some(_) => sleep(SETTLED_AFTER).await,
                None => return Err(READ_TIMED_OUT.to_owned()),
            }
        }
        Err("changes while it is read; replace it by a rename instead of writing in place"
            .to_owned())
    }

    async fn changed(&self) {
        while self.stamp().await == *self.read.lock().unwrap_or_else(PoisonError::into_inner) {
            sleep(POLL_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::symlink, sync::Arc};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn file(path: &Path) -> Arc<WatchedFile> {
        Arc::new(WatchedFile::new(path.to_owned(), 100))
    }

    async fn says(file: &WatchedFile, text: &str) {
        assert_eq!(file.read().await.unwrap().expose(), text.as_bytes());
    }

    /// Makes a change and waits until it is reported.
    async fn notices(file: &Arc<WatchedFile>, change: impl FnOnce()) {
        let waiting = {
            let file = Arc::clone(file);
            tokio::spawn(async move { file.changed().await })
        };
        tokio::task::yield_now().await;
        change();
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn notices_a_rename_to_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let (path, draft) = (directory.path().join("id"), directory.path().join("draft"));
        fs::write(&path, "one").unwrap();
        let file = file(&path);
        says(&file, "one").await;
        notices(&file, || {
            fs::write(&draft, "two").unwrap();
            fs::rename(&draft, &path).unwrap();
        })
        .await;
        says(&file, "two").await;
    }

    /// The kubelet updates projected volumes like this: the file is a link into a directory that is
    /// a link.
    #[tokio::test]
    async fn notices_an_exchanged_link() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("id"), text).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/id", at("id")).unwrap();
        let file = file(&at("id"));
        says(&file, "one").await;
        notices(&file, || {
            symlink("..2", at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
        })
        .await;
        says(&file, "two").await;
    }

    #[tokio::test]
    async fn never_reads_half_of_a_write_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        fs::write(&path, "one").unwrap();
        let file = file(&path);
        says(&file, "one").await;
        let mut writing = fs::File::create(&path).unwrap();
        writing.write_all(b"tw").unwrap();
        let reading = {
            let file = Arc::clone(&file);
            tokio::spawn(async move { file.read().await })
        };
        tokio::task::yield_now().await;
        writing.write_all(b"o").unwrap();
        assert_eq!(reading.await.unwrap().unwrap().expose(), b"two");
    }

    #[tokio::test]
    async fn notices_that_a_file_goes_and_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        fs::write(&path, "one").unwrap();
        let file = file(&path);
        says(&file, "one").await;
        notices(&file, || fs::remove_file(&path).unwrap()).await;
        assert!(file.read().await.unwrap_err().contains("cannot be read"));
        notices(&file, || fs::write(&path, "two").unwrap()).await;
        says(&file, "two").await;
    }

    #[tokio::test]
    async fn rejects_a_pipe_and_notices_a_plain_file_in_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let (path, draft) = (directory.path().join("id"), directory.path().join("draft"));
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let file = file(&path);
        assert!(file.read().await.unwrap_err().contains("is a named pipe (FIFO)"));
        notices(&file, || {
            fs::write(&draft, "one").unwrap();
            fs::rename(&draft, &path).unwrap();
        })
        .await;
        says(&file, "one").await;
    }

    #[tokio::test]
    async fn a_read_ends_when_a_file_system_hangs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        fs::write(&path, "one").unwrap();
        let thread = FileThread::within(Duration::from_millis(50));
        let file = WatchedFile { thread, ..WatchedFile::new(path, 100) };
        let (release, held) = std::sync::mpsc::channel::<()>();
        assert_eq!(file.on_thread(move |_path| held.recv().unwrap_or_default()).await, None);
        assert_eq!(file.read().await.unwrap_err(), READ_TIMED_OUT);
        drop(release);
        let file = WatchedFile { thread: FileThread::default(), ..file };
        says(&file, "one").await;
    }
}
