//! How a file stands in its place: its permissions, and whether it is mounted by itself.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// Returns the permission bits of a file, where it can be looked at.
#[must_use]
pub fn mode_of(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|found| found.mode() & 0o7777)
}

/// Returns whether a file is mounted by itself, as container engines do with single files: a new
/// file that is renamed to its name outside never arrives.
#[must_use]
pub fn is_mounted_by_itself(path: &Path) -> bool {
    let Ok(path) = fs::canonicalize(path) else { return false };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    is_mount_point(&mounts, &path)
}

/// Whether `path` is a mount point by `/proc/self/mountinfo`, whose fifth field it is, with blanks
/// in octal (proc(5)).
fn is_mount_point(mounts: &str, path: &Path) -> bool {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(|point| point.replace("\\040", " ")).any(|point| Path::new(&point) == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_mounted_by_itself_is_told_from_one_in_a_mounted_directory() {
        let mounts = "36 35 98:0 / /run/secrets rw - ext4 /dev/sda1 rw\n\
                      37 35 98:0 /id /etc/kms/secret\\040id rw - ext4 /dev/sda1 rw\n";
        assert!(is_mount_point(mounts, Path::new("/etc/kms/secret id")));
        assert!(!is_mount_point(mounts, Path::new("/run/secrets/id")));
    }
}
