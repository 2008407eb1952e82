//! The file of the audit log. Another program, such as logrotate, may rename it at any time. The
//! next entry then goes to a new file of the original name.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, io::Errno};

/// A plain file that is only appended to.
#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    file: File,
    /// Device and inode of `file`.
    identity: (u64, u64),
}

impl AuditFile {
    /// Opens the file at `path`, or creates it with mode 0600.
    ///
    /// # Errors
    /// When `path` is not a plain file, is a symbolic link, belongs to a user other than root and
    /// that of this process, may be written by every user,
    /// or cannot be opened.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
            .open(path)
            .map_err(|error| match Errno::from_io_error(&error) {
                Some(Errno::LOOP | Errno::NXIO) => not_plain(path),
                _ => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
            })?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(not_plain(path));
        }
        let ours = rustix::process::geteuid().as_raw();
        if ![ours, 0].contains(&found.uid()) || found.mode() & 0o002 != 0 {
            let (uid, mode) = (found.uid(), found.mode() & 0o7777);
            let text = format!(
                "{} belongs to uid {uid} and has mode {mode:04o}: another user can change the log; give it \
                 to uid {ours} with mode 0600, on a file system that keeps owners",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(Self { path: path.to_owned(), file, identity: (found.dev(), found.ino()) })
    }

    /// Appends `line` to the file that is at the path now.
    ///
    /// # Errors
    /// When the line cannot be written, or when the file is missing and cannot be created.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let is_unchanged = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if !is_unchanged {
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(line)
    }
}

fn not_plain(path: &Path) -> io::Error {
    let text = format!("{} is not a plain file; give --audit-log another path", path.display());
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// Returns a temporary directory and the path of a file in it.
    pub(in crate::adapters::telemetry) fn directory() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit");
        (directory, path)
    }

    #[test]
    fn creates_a_new_file_with_mode_0600_after_a_rename() {
        let (kept, path) = directory();
        let mut file = AuditFile::open(&path).unwrap();
        file.append(b"one\n").unwrap();
        fs::rename(&path, kept.path().join("audit.1")).unwrap();
        file.append(b"two\n").unwrap();
        file.append(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(kept.path().join("audit.1")).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\nthree\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    /// Another user could change or forge the log.
    #[test]
    fn rejects_a_file_that_another_user_can_change() {
        let (_directory, path) = directory();
        AuditFile::open(&path).unwrap();
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o640);
        AuditFile::open(&path).unwrap();
        mode(0o602);
        let error = AuditFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("has mode 0602: another user can change the log"), "{error}");
        mode(0o600);
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT RUN: a file of another uid, because only root can make one");
            assert!(std::env::var_os("CI").is_none(), "CI runs it as root");
            return;
        }
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        let error = AuditFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("belongs to uid 65534"), "{error}");
    }

    #[test]
    fn rejects_links_pipes_and_directories() {
        let (kept, path) = directory();
        let pipe = kept.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        symlink(&path, kept.path().join("link")).unwrap();
        for name in ["pipe", "link"] {
            let error = AuditFile::open(&kept.path().join(name)).unwrap_err();
            assert!(error.to_string().contains("is not a plain file"), "{name}: {error}");
        }
        assert!(AuditFile::open(kept.path()).is_err());
        assert!(!path.exists(), "the target of the link was created");
    }
}
