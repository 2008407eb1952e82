//! The file of a socket that this process has bound, told from any other in its place.

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

/// The file of a bound socket. While this value exists the file's inode is in use, so that no other
/// file can have its number: ext4 gives the number of a removed file to the next one.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    _pin: OwnedFd,
}

impl SocketFile {
    /// The file that is at `now`, and is about to be moved to `path`.
    pub(super) fn pin(now: &Path, path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pin = openat(CWD, now, flags, Mode::empty())?;
        let found = fstat(&pin)?;
        Ok(Self { path: path.to_owned(), device: found.st_dev, inode: found.st_ino, _pin: pin })
    }

    /// Whether the file is at its path, and not another one.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode)
    }

    /// Removes the file, unless another one is in its place. The directory is locked meanwhile: a
    /// process that starts cannot put its own file there between the look and the removal. Blocks
    /// for a second at most.
    ///
    /// # Errors
    /// Why the file is left behind; the next start replaces it.
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

    /// A directory on the disk that the tests were built on. File systems in memory do not use a
    /// number again.
    fn on_disk() -> tempfile::TempDir {
        tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap()
    }

    #[test]
    fn a_successors_socket_is_not_removed() {
        for directory in [on_disk(), tempfile::tempdir_in("/dev/shm").unwrap()] {
            let path = directory.path().join("k.sock");
            let bound = BoundSocket::bind(&SocketAddress::File(path.clone())).unwrap();
            // Nothing but the file's own value keeps its number from being used again.
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
    fn a_file_in_a_locked_directory_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("k.sock");
        let address = SocketAddress::File(path.clone());
        let bound = BoundSocket::bind(&address).unwrap();
        let _held = lock_directory(&address, directory.path(), Duration::ZERO).unwrap();
        assert!(matches!(bound.file.unwrap().remove(), Err(BindError::Locked { .. })));
        assert!(path.exists());
    }
}
