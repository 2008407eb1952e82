//! Reads a file that an operator names, with bounds on size and time, into memory that is wiped.
//!
//! Opens only plain files: opening a device can have effects, and a pipe gives its content once.
//! The configuration may come through a pipe, because it is read once.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::Access,
    io::Errno,
};
use zeroize::Zeroizing;

use super::{
    followed_path::{FollowedPath, LastLink},
    sandbox,
};
use crate::domain::secret::Plaintext;

/// How long reading one file may take.
pub const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Reports a file whose read took longer than [`READ_TIMEOUT`]. The text follows the path of the file.
pub(super) const READ_TIMED_OUT: &str =
    "cannot be read: the read did not end within 5 s; check the pipe or the network file system";

/// How often a path that leads nowhere is followed. Another process may exchange the links of its
/// path, as kubelet does for a volume, after they were followed and before the file is opened.
const OPENS_MAX: usize = 3;

/// The kinds of file that may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// A plain file.
    Plain,
    /// A plain file or a pipe, for example from process substitution.
    PlainOrPipe,
    /// A plain file that belongs to the user of this process, is readable only by this user, and is
    /// not itself a symbolic link.
    OwnerOnly,
}

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// There is no file, in words that follow its path.
    Missing(String),
    /// Any other reason, in words that follow its path.
    Unreadable(String),
}

impl ReadError {
    /// Returns the words that follow the path of the file.
    #[must_use]
    pub fn into_text(self) -> String {
        match self {
            Self::Missing(text) | Self::Unreadable(text) => text,
        }
    }
}

impl From<String> for ReadError {
    fn from(text: String) -> Self {
        Self::Unreadable(text)
    }
}

/// Reads at most `most` bytes from `path` within [`READ_TIMEOUT`]. Uses a thread of its own,
/// because a network file system may never answer. For code that may block its own thread.
///
/// # Errors
/// Returns why it cannot be read, in words that follow its path.
pub fn read_in_time(path: &Path, most: u64, kinds: Kinds) -> Result<Plaintext, String> {
    let path = path.to_owned();
    in_time(READ_TIMEOUT, move |until| read(&path, most, kinds, until)).flatten()
}

/// Does the same as [`read_in_time`]. Returns `None` if there is no file.
///
/// # Errors
/// Returns why it cannot be read, in words that follow its path.
pub fn read_if_any(path: &Path, most: u64, kinds: Kinds) -> Result<Option<Plaintext>, String> {
    let path = path.to_owned();
    let read = in_time(READ_TIMEOUT, move |until| read_file(&path, most, kinds, until))?;
    match read {
        Ok((bytes, _)) => Ok(Some(bytes)),
        Err(ReadError::Missing(_)) => Ok(None),
        Err(ReadError::Unreadable(why)) => Err(why),
    }
}

/// Reads at most `most` bytes from `path` on this thread. Returns the metadata of the file too. A
/// file system that never answers blocks it, so a process that serves calls it with [`in_time`] or in a
/// [`FileThread`](super::file_thread::FileThread).
///
/// # Errors
/// Returns why it cannot be read.
pub fn read_with_metadata(
    path: &Path,
    most: u64,
    kinds: Kinds,
) -> Result<(Plaintext, Metadata), ReadError> {
    read_file(path, most, kinds, deadline_after(READ_TIMEOUT))
}

/// Runs `work` on a thread of its own, and waits for at most `limit` and a tenth more. For code that
/// runs once and may block its own thread.
///
/// # Errors
/// Returns why there is no result, in words that follow the path of the file.
pub fn in_time<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce(Instant) -> T + Send + 'static,
) -> Result<T, String> {
    let (done, result) = mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name("file".to_owned())
        .spawn(move || drop(done.send(work(deadline_after(limit)))))
        .map_err(|error| cannot(&error))?;
    // The work ends by itself a little earlier, if it can.
    let result = result.recv_timeout(limit + limit / 10);
    let result = result.map_err(|_late| READ_TIMED_OUT.to_owned())?;
    // Has nothing left to do. The system may allow only few threads at once.
    drop(thread.join());
    Ok(result)
}

/// Reads at most `most` bytes from `path`. Stops at `until` if the file is a pipe or another file
/// that can be polled. Blocks.
///
/// # Errors
/// Returns why it cannot be read, in words that follow its path.
pub(super) fn read(
    path: &Path,
    most: u64,
    kinds: Kinds,
    until: Instant,
) -> Result<Plaintext, String> {
    read_file(path, most, kinds, until).map(|(bytes, _)| bytes).map_err(ReadError::into_text)
}

fn read_file(
    path: &Path,
    most: u64,
    kinds: Kinds,
    until: Instant,
) -> Result<(Plaintext, Metadata), ReadError> {
    let mut opened = open(path, most, kinds);
    for _ in 1..OPENS_MAX {
        let changed = |error: &io::Error| {
            let changes = [Errno::NOENT, Errno::LOOP].map(Errno::raw_os_error);
            error.raw_os_error().is_some_and(|code| changes.contains(&code))
        };
        if !opened.as_ref().is_err_and(changed) {
            break;
        }
        opened = open(path, most, kinds);
    }
    let (file, found) = opened.map_err(|error| unreachable_path(path, &error))??;
    let bytes = drained(file, found.len().min(most), most, until)?;
    Ok((bytes, found))
}

/// Opens a file of a suitable kind. The outer error says that the path leads to no file that can be
/// opened, and the inner one why the file that it leads to is refused.
fn open(path: &Path, most: u64, kinds: Kinds) -> io::Result<Result<(File, Metadata), String>> {
    let last = if kinds == Kinds::OwnerOnly { LastLink::Kept } else { LastLink::Followed };
    let followed = match FollowedPath::of(path, last)? {
        Ok(followed) => followed,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Err(refusal) = suits(&followed.metadata()?, most, kinds) {
        return Ok(Err(refusal));
    }
    let file = followed.open()?;
    // Checks again: the path may lead to another file by now.
    let found = file.metadata()?;
    Ok(suits(&found, most, kinds).map(|()| (file, found)))
}

/// Reads to the end of `file`. Expects about `expected` bytes and allows at most `most`.
fn drained(mut file: File, expected: u64, most: u64, until: Instant) -> Result<Plaintext, String> {
    let too_large = || format!("is larger than {most} bytes");
    let most = usize::try_from(most).map_err(|_range| too_large())?;
    let room = usize::try_from(expected).unwrap_or(most).max(1_023);
    // Has room for one byte more than allowed, to detect a file that is too large.
    let mut bytes = Zeroizing::new(vec![0; room.min(most) + 1]);
    let mut length = 0;
    loop {
        if length > most {
            return Err(too_large());
        }
        if length == bytes.len() {
            // Grows the buffer by hand: growth of a `Vec` would leave a copy of the secret in
            // memory.
            let mut larger = Zeroizing::new(vec![0; (length * 2).min(most + 1)]);
            for (to, from) in larger.iter_mut().zip(bytes.iter()) {
                *to = *from;
            }
            bytes = larger;
        }
        wait_for(&file, until)?;
        let Some(rest) = bytes.get_mut(length..) else { return Err(too_large()) };
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if is_temporary(&error) => (),
            Err(error) => return Err(cannot(&error)),
        }
    }
    bytes.truncate(length);
    Ok(Plaintext::new(std::mem::take(&mut *bytes)))
}

/// Waits until `file` has bytes or has ended. A plain file is always ready.
fn wait_for(file: &File, until: Instant) -> Result<(), String> {
    loop {
        let left = until.saturating_duration_since(deadline_after(Duration::ZERO));
        if left.is_zero() {
            return Err(READ_TIMED_OUT.to_owned());
        }
        let left = Timespec::try_from(left).map_err(|_range| READ_TIMED_OUT.to_owned())?;
        match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(READ_TIMED_OUT.to_owned()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => (),
            Err(error) => return Err(cannot(&error.into())),
        }
    }
}

/// Returns the instant that is `limit` from now.
#[expect(clippy::disallowed_methods, reason = "kernel waits are bounded in real time")]
pub(super) fn deadline_after(limit: Duration) -> Instant {
    Instant::now() + limit
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Checks that a file of this kind and size may be read.
fn suits(found: &Metadata, most: u64, kinds: Kinds) -> Result<(), String> {
    let kind = found.file_type();
    // The program itself writes such a file.
    let remedy = if kinds == Kinds::OwnerOnly { "; remove it" } else { "" };
    if kind.is_fifo() && kinds == Kinds::PlainOrPipe {
        return Ok(());
    }
    let kind = if kind.is_dir() {
        "directory"
    } else if kind.is_fifo() {
        "named pipe (FIFO)"
    } else if kind.is_char_device() {
        "character device"
    } else if kind.is_block_device() {
        "block device"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_symlink() {
        "symbolic link"
    } else if !kind.is_file() {
        "special file"
    } else if found.len() > most {
        return Err(format!("is larger than {most} bytes{remedy}"));
    } else if kinds == Kinds::OwnerOnly && !is_private(found) {
        let uid = rustix::process::geteuid().as_raw();
        return Err(format!("must be a plain file of uid {uid} and mode 0600{remedy}"));
    } else {
        return Ok(());
    };
    Err(format!("is a {kind}, not a plain file{remedy}"))
}

fn is_private(found: &Metadata) -> bool {
    let others = found.mode() & 0o077;
    found.uid() == rustix::process::geteuid().as_raw() && others == 0
}

/// Returns why the file at `path` cannot be opened.
fn unreachable_path(path: &Path, error: &io::Error) -> ReadError {
    let is_link = || fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    if error.kind() == io::ErrorKind::NotFound && is_link() {
        return "is a symbolic link whose target does not exist".to_owned().into();
    }
    if error.kind() == io::ErrorKind::NotFound {
        return ReadError::Missing(cannot(error));
    }
    if let Some(refusal) = sandbox::refusal(path, Access::READ_OK, error) {
        return refusal.to_owned().into();
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        let uid = rustix::process::geteuid().as_raw();
        return format!("cannot be read by uid {uid}: {error}").into();
    }
    cannot(error).into()
}

fn cannot(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        os::{
            fd::AsRawFd as _,
            unix::{fs::symlink, net::UnixListener},
        },
        sync::Barrier,
    };

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn at_once(path: &Path, kinds: Kinds) -> Result<Plaintext, String> {
        read(path, 100, kinds, deadline_after(Duration::from_millis(50)))
    }

    fn fifo(path: &Path) {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }

    #[test]
    fn reads_plain_files_up_to_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for length in [0, 1, 99, 100] {
            fs::write(&path, vec![b'x'; length]).unwrap();
            assert_eq!(at_once(&path, Kinds::Plain).unwrap().len(), length);
        }
        fs::write(&path, [b'x'; 101]).unwrap();
        assert!(at_once(&path, Kinds::Plain).unwrap_err().contains("larger than 100 bytes"));
        let descriptor = File::open(&path).unwrap();
        let through = format!("/dev/fd/{}", descriptor.as_raw_fd());
        let read = read_in_time(Path::new(&through), 1_000, Kinds::Plain);
        assert_eq!(read.unwrap().len(), 101);
    }

    /// Files in /proc report a size of 0.
    #[test]
    fn reads_a_file_that_is_longer_than_its_metadata_says() {
        let expected = fs::read("/proc/self/mountinfo").unwrap();
        let read = read_in_time(Path::new("/proc/self/mountinfo"), 1_048_576, Kinds::Plain);
        assert_eq!(read.unwrap().expose(), expected);
        assert!(at_once(Path::new("/proc/self/mountinfo"), Kinds::Plain).is_err());
    }

    #[test]
    fn rejects_other_kinds_and_names_them() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fifo(&at("fifo"));
        let _listening = UnixListener::bind(at("socket")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        symlink(at("loop"), at("loop")).unwrap();
        for (path, named) in [
            (at("fifo"), "is a named pipe (FIFO), not a plain file"),
            (at("socket"), "is a socket, not a plain file"),
            (at("."), "is a directory, not a plain file"),
            ("/dev/zero".into(), "is a character device, not a plain file"),
            (at("dangling"), "is a symbolic link whose target does not exist"),
            (at("loop"), "cannot be read: Too many levels of symbolic links"),
            (at("missing"), "cannot be read: No such file"),
        ] {
            let problem = at_once(&path, Kinds::Plain).unwrap_err();
            assert!(problem.starts_with(named), "{problem}");
        }
    }

    /// Kubelet replaces the link `..data` of a volume, and removes what it led to.
    #[test]
    fn reads_a_file_whose_links_are_exchanged_meanwhile() {
        const ROUNDS: usize = 2_000;
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        symlink("..data/token", at("token")).unwrap();
        let replace = |new: &str, old: &str| {
            fs::create_dir(at(new)).unwrap();
            fs::write(at(new).join("token"), "x").unwrap();
            symlink(new, at("..draft")).unwrap();
            fs::rename(at("..draft"), at("..data")).unwrap();
            fs::remove_dir_all(at(old)).unwrap();
        };
        fs::create_dir(at("odd")).unwrap();
        replace("even", "odd");
        let round = Barrier::new(2);
        let path = at("token");
        let reads = thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    round.wait();
                    // Each replacement can make one try fail, and the last try is left.
                    replace("odd", "even");
                    replace("even", "odd");
                }
            });
            let mut read = |_| {
                round.wait();
                at_once(&path, Kinds::Plain)
            };
            (0..ROUNDS).map(&mut read).collect::<Vec<_>>()
        });
        assert_eq!(reads.into_iter().find_map(Result::err), None);
    }

    #[test]
    fn reads_a_pipe_to_its_end_if_pipes_are_allowed() {
        let (reader, mut writer) = io::pipe().unwrap();
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        writer.write_all(b"one").unwrap();
        drop(writer);
        let path = Path::new(&path);
        assert!(at_once(path, Kinds::Plain).unwrap_err().contains("pipe"));
        assert_eq!(at_once(path, Kinds::PlainOrPipe).unwrap().expose(), b"one");
    }

    #[test]
    fn gives_up_on_a_pipe_without_an_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        fifo(&path);
        assert_eq!(at_once(&path, Kinds::PlainOrPipe).unwrap_err(), READ_TIMED_OUT);
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"one").unwrap();
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        assert_eq!(at_once(Path::new(&path), Kinds::PlainOrPipe).unwrap_err(), READ_TIMED_OUT);
    }

    #[test]
    fn gives_up_on_a_file_system_that_never_answers() {
        let (release, held) = mpsc::channel::<()>();
        let read = in_time(Duration::from_millis(20), move |_until| {
            held.recv().unwrap_or_default();
            "too late"
        });
        assert_eq!(read.unwrap_err(), READ_TIMED_OUT);
        drop(release);
    }
}
