//! Replaces a file in one step.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Replaces the file at `path` by one with the content `bytes` and mode 0600 (less the umask). A
/// reader sees the old file or the new one, each complete. The new content is on the disk before it
/// gets the name. The name itself is not: sync the directory for that.
///
/// Writes a draft `.NAME.new` in the same directory. A draft that an ended process left behind is
/// removed. It may be a link or a file that others may read, so it is never opened.
///
/// # Errors
/// When the draft cannot be written, or cannot get the name.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let draft = path.with_file_name(name);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_draft_that_is_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let [file, other] = ["file", "other"].map(|name| dir.path().join(name));
        fs::write(&other, "keep").unwrap();
        std::os::unix::fs::symlink(&other, dir.path().join(".file.new")).unwrap();
        replace(&file, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&other).unwrap(), b"keep");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "old").unwrap();
        fs::create_dir(dir.path().join(".file.new")).unwrap();
        replace(&file, b"new").unwrap_err();
        assert_eq!(fs::read(&file).unwrap(), b"old");
    }
}
