//! A text file, watched through its directory: a rename to its name, a symbolic link that is
//! swapped, a file that is written in place.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::{io::AsyncReadExt as _, net::unix::pipe, time::sleep};
use zeroize::Zeroizing;

use crate::{domain::secret::Secret, ports::file::TextFile};

/// How often it is looked at whatever the directory reports: network file systems report nothing,
/// and a link may point to another directory.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A file that was written this recently may still be written to.
const STILL: Duration = Duration::from_millis(100);

/// How often it is waited for a file to be left alone.
const TRIES: u32 = 20;

/// What tells one state of a file from another: device, inode, change time and size.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// A text file of bounded size.
#[derive(Debug)]
pub struct WatchedFile {
    path: PathBuf,
    most: u64,
    /// Of the state that was last read.
    read: Mutex<Stamp>,
    /// News of the directory, once they were asked for.
    news: tokio::sync::Mutex<Option<pipe::Receiver>>,
}

impl WatchedFile {
    /// The file at `path`, of at most `most` bytes.
    #[must_use]
    pub fn new(path: PathBuf, most: u64) -> Self {
        Self { path, most, read: Mutex::new(None), news: tokio::sync::Mutex::new(None) }
    }

    async fn read_once(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let cannot = |error: io::Error| format!("cannot be read: {error}");
        let file = tokio::fs::File::open(&self.path).await.map_err(cannot)?;
        if !file.metadata().await.map_err(cannot)?.is_file() {
            return Err("is no plain file".to_owned());
        }
        // Room for all of it, so that growing leaves no copies behind.
        let room = usize::try_from(self.most.min(65_536)).unwrap_or_default() + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        file.take(self.most + 1).read_to_end(&mut bytes).await.map_err(cannot)?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > self.most) {
            return Err(format!("is larger than {} bytes", self.most));
        }
        Ok(bytes)
    }

    /// Waits for news of the directory, or for the time to look anyway.
    async fn wait(&self) {
        let mut news = self.news.lock().await;
        if news.is_none() {
            // Without them, as on a network file system, looking is enough.
            *news = listen(self.path.parent().unwrap_or(Path::new("."))).ok();
        }
        tokio::select! {
            () = sleep(LOOK_EVERY) => (),
            () = drain(news.as_ref()) => (),
        }
    }
}

/// The state of the file behind `path`, whatever links lead there. Asked in a thread of its own: a
/// network file system may hang.
async fn stamp(path: &Path) -> Stamp {
    let found = tokio::fs::metadata(path).await.ok()?;
    Some((found.dev(), found.ino(), found.ctime(), found.ctime_nsec(), found.size()))
}

/// Whether the file behind `path` was changed moments ago.
async fn is_warm(path: &Path) -> bool {
    let modified = tokio::fs::metadata(path).await.and_then(|found| found.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < STILL))
}

/// Listens to what happens in `directory`.
fn listen(directory: &Path) -> io::Result<pipe::Receiver> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let flags = WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::DELETE
        | WatchFlags::ATTRIB
        | WatchFlags::ONLYDIR;
    let _watch = inotify::add_watch(&inotify, directory, flags)?;
    // No pipe, but read and waited for like one.
    pipe::Receiver::from_owned_fd_unchecked(inotify)
}

/// Waits for news and takes them away: what they say is found out by looking.
async fn drain(news: Option<&pipe::Receiver>) {
    let Some(news) = news else { return std::future::pending().await };
    if news.readable().await.is_err() {
        return std::future::pending().await;
    }
    let mut events = [0; 4_096];
    while news.try_read(&mut events).is_ok_and(|count| count > 0) {}
}

#[async_trait]
impl TextFile for WatchedFile {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    async fn read(&self) -> Result<Secret, String> {
        for _ in 0..TRIES {
            let before = stamp(&self.path).await;
            *self.read.lock().unwrap_or_else(PoisonError::into_inner) = before;
            let read = self.read_once().await;
            if is_warm(&self.path).await || stamp(&self.path).await != before {
                sleep(STILL).await;
                continue;
            }
            let bytes = read?;
            let text = std::str::from_utf8(&bytes).map_err(|_private| "is no UTF-8".to_owned())?;
            return Ok(Secret::new(text.to_owned()));
        }
        Err("is written to all the time".to_owned())
    }

    async fn changed(&self) {
        loop {
            let now = stamp(&self.path).await;
            if now != *self.read.lock().unwrap_or_else(PoisonError::into_inner) {
                return;
            }
            self.wait().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, os::unix::fs::symlink, sync::Arc};

    use tokio::time::timeout;

    use super::*;

    /// Far less than the time to look anyway.
    const AT_ONCE: Duration = Duration::from_millis(1_500);

    fn file(path: &Path) -> Arc<WatchedFile> {
        Arc::new(WatchedFile::new(path.to_owned(), 100))
    }

    async fn says(file: &WatchedFile, text: &str) {
        assert_eq!(file.read().await.unwrap().expose(), text);
    }

    /// Waits for a change that `change` makes, and fails if it is not noticed at once.
    async fn notices(file: &Arc<WatchedFile>, change: impl FnOnce()) {
        let waiting = {
            let file = Arc::clone(file);
            tokio::spawn(async move { file.changed().await })
        };
        // It listens before anything happens.
        while file.news.try_lock().is_ok() {
            tokio::task::yield_now().await;
        }
        change();
        timeout(AT_ONCE, waiting).await.expect("it is noticed at once").unwrap();
    }

    #[tokio::test]
    async fn a_rename_to_its_name_is_noticed() {
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

    /// As the kubelet updates projected volumes: the file is a link into a directory that is a link.
    #[tokio::test]
    async fn a_swapped_link_is_noticed() {
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
    async fn a_file_that_is_written_in_place_is_not_seen_half() {
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
        assert_eq!(reading.await.unwrap().unwrap().expose(), "two");
    }

    #[tokio::test]
    async fn a_file_that_goes_and_comes_back_is_noticed_both_times() {
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
    async fn what_is_no_text_file_of_that_size_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        fs::write(&path, [b'x'; 101]).unwrap();
        assert!(file(&path).read().await.unwrap_err().contains("larger than 100 bytes"));
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(file(&path).read().await.unwrap_err().contains("UTF-8"));
        assert!(file(directory.path()).read().await.is_err());
    }
}
