//! Opens the directory of the socket, and locks it while this process creates or removes a socket
//! there.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    thread,
    time::Duration,
};

use rustix::fs::{Access, AtFlags, CWD, FlockOperation, OFlags};

use super::{address::SocketAddress, bind_error::BindError};

/// How long a start or a stop waits while another process starts or stops in the same directory.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(1);

/// How often the lock is tried.
const LOCK_EVERY: Duration = Duration::from_millis(50);

/// Opens a directory and checks that this process may create files in it.
pub(super) fn open_directory(address: &SocketAddress, directory: &Path) -> Result<File, BindError> {
    let uid = rustix::process::geteuid().as_raw();
    let open = open(directory).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => BindError::NoDirectory { path: directory.to_owned(), uid },
        io::ErrorKind::PermissionDenied => {
            BindError::NotWritable { path: directory.to_owned(), uid }
        }
        _ => BindError::System { action: "open the directory", address: address.clone(), source },
    })?;
    let access = Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::accessat(CWD, directory, access, AtFlags::EACCESS) {
        Ok(()) => (),
        Err(rustix::io::Errno::ROFS) => return Err(BindError::ReadOnly(directory.to_owned())),
        Err(_) => return Err(BindError::NotWritable { path: directory.to_owned(), uid }),
    }
    Ok(open)
}

/// Opens `directory`. Fails at once when it is a pipe: opening a pipe could wait for ever.
fn open(directory: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::DIRECTORY.bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(flags).open(directory)
}

/// Locks the directory of the socket until the returned value is dropped. Every process that may
/// read the directory can hold that lock, so this waits for at most `wait`. Blocks.
///
/// # Errors
/// Returns [`BindError::Locked`] after `wait`, and the errors of [`open_directory`].
pub(super) fn lock_directory(
    address: &SocketAddress,
    directory: &Path,
    wait: Duration,
) -> Result<File, BindError> {
    let open = open_directory(address, directory)?;
    let mut waited = Duration::ZERO;
    loop {
        match rustix::fs::flock(&open, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(open),
            Err(rustix::io::Errno::WOULDBLOCK) if waited < wait => {
                thread::sleep(LOCK_EVERY);
                waited = waited.saturating_add(LOCK_EVERY);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(BindError::Locked { path: directory.to_owned(), wait });
            }
            Err(error) => {
                return Err(BindError::System {
                    action: "lock the directory",
                    address: address.clone(),
                    source: error.into(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_a_lock_of_another_process_after_the_wait() {
        let directory = tempfile::tempdir().unwrap();
        let address = SocketAddress::File(directory.path().join("k.sock"));
        let wait = Duration::from_millis(60);
        let held = lock_directory(&address, directory.path(), wait).unwrap();
        let error = lock_directory(&address, directory.path(), wait).unwrap_err().to_string();
        let path = directory.path().display().to_string();
        for part in [&path, "locked by another process", "lsof", "--listen-address"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        drop(held);
        lock_directory(&address, directory.path(), wait).unwrap();
    }

    #[test]
    fn rejects_a_pipe_in_place_of_the_directory_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let address = SocketAddress::File(pipe.join("k.sock"));
        assert!(open_directory(&address, &pipe).is_err());
    }
}
