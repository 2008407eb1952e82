//! Identifies the socket file that this process has bound, so that no other file in its place is
//! removed.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};

use super::{
    address::SocketAddress,
    bind_error::BindError,
    socket_directory::{LOCK_WAIT, lock_directory},
};

/// The file of a bound socket. Keeps the inode of the file in use, so that no other file can get
/// its number: ext4 gives the number of a removed file to the next file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    _pin: OwnedFd,
}

impl SocketFile {
    /// Opens the file that is at `now` and will be moved to `path`.
    pub(super) fn pin(now: &Path, path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pin = openat(CWD, now, flags, Mode::empty())?;
        let found = fstat(&pin)?;
        Ok(Self { path: path.to_owned(), device: found.st_dev, inode: found.st_ino, _pin: pin })
    }

    /// Returns whether this file, and not another one, is at its path.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode)
    }

    /// Removes the file, unless another file is in its place. Locks the directory, so that a
    /// starting process cannot put its own file there between the check and the removal. Blocks for
    /// a second at most.
    ///
    /// # Errors
    /// Returns why the file was not removed. The next start replaces it.
    pub fn remove(self) -> Result<(), BindError> {
        if !self.is_in_place() {
            return Ok(());
        }
        let address = SocketAddress::File(self.path.clone());
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let _lock = lock_directory(&address, directory, LOCK_WAIT)?;
        if self.is_in_place() {
            fs::remove_file(&self.path).map_err(|source| BindError::System {
                action: "remove the socket",
                address,
                source,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, time::Duration};

    use super::*;
    use crate::adapters::grpc::socket::BoundSocket;

    /// Returns a directory on the disk of the build directory. File systems in memory do not use a
    /// number again.
    fn on_disk() -> tempfile::TempDir {
        tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap()
    }

    #[test]
    fn leaves_the_socket_of_a_successor() {
        for directory in [on_disk(), tempfile::tempdir_in("/dev/shm").unwrap()] {
            let path = directory.path().join("k.sock");
            let bound = BoundSocket::bind(&SocketAddress::File(path.clone())).unwrap();
            // Closes the listener, so that only the `SocketFile` keeps the number in use.
            drop(bound.listener);
            fs::remove_file(&path).unwrap();
            let _successor = UnixListener::bind(&path).unwrap();
            let file = bound.file.unwrap();
            assert!(!file.is_in_place());
            file.remove().unwrap();
            assert!(path.exists(), "{}", path.display());
        }
    }

    #[test]
    fn leaves_the_file_in_a_locked_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("k.sock");
        let address = SocketAddress::File(path.clone());
        let bound = BoundSocket::bind(&address).unwrap();
        let _held = lock_directory(&address, directory.path(), Duration::ZERO).unwrap();
        assert!(matches!(bound.file.unwrap().remove(), Err(BindError::Locked { .. })));
        assert!(path.exists());
    }
}
