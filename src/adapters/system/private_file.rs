//! A file that only this process's user may read, replaced in one step.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use rustix::fs::{FsWord, statfs};

use crate::{domain::secret::Secret, ports::file::PrivateFile};

/// The largest that is read, in bytes.
const SIZE_MAX: u64 = 65_536;

/// The kernel's number for a file system in memory (statfs(2)).
const TMPFS: FsWord = 0x0102_1994;

/// A file of mode 0600.
#[derive(Debug)]
pub struct OwnFile {
    path: PathBuf,
}

impl OwnFile {
    /// The file at `path`, in a directory that exists.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

/// Whether what is written to `path` stays in memory and is gone with the machine.
#[must_use]
pub fn is_in_memory(path: &Path) -> bool {
    path.parent()
        .is_some_and(|directory| statfs(directory).is_ok_and(|found| found.f_type == TMPFS))
}

fn load(path: &Path) -> Result<Option<Secret>, String> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot be read: {error}")),
    };
    let uid = rustix::process::geteuid().as_raw();
    if !found.is_file() || found.uid() != uid || found.mode() & 0o077 != 0 {
        return Err(format!("must be a plain file of uid {uid} and mode 0600; remove it"));
    }
    if found.len() > SIZE_MAX {
        return Err("is too large; remove it".to_owned());
    }
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    Ok(Some(Secret::new(text)))
}

fn store(path: &Path, text: &Secret) -> Result<(), String> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let draft = path.with_file_name(name);
    let write = || -> io::Result<()> {
        // One that an ended process left behind.
        drop(fs::remove_file(&draft));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.expose().as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(|error| format!("cannot be written: {error}"))
}

#[async_trait]
impl PrivateFile for OwnFile {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    async fn load(&self) -> Result<Option<Secret>, String> {
        load(&self.path)
    }

    async fn store(&self, text: &Secret) -> Result<(), String> {
        store(&self.path, text)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_is_stored_is_loaded_and_nobody_else_may_read_it() {
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
    fn what_others_could_have_written_or_read_is_not_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        store(&path, &Secret::new("x".to_owned())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load(&path).unwrap_err().contains("0600"));
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(load(&link).is_err());
    }
}
