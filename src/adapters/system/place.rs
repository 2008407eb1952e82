//! Reports how a file is placed: its permissions, and whether it is a mount of its own.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

/// Returns the permission bits of a file, or `None` when its metadata cannot be read.
#[must_use]
pub fn mode_of(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|found| found.mode() & 0o7777)
}

/// Returns whether something is mounted at `path` itself, as container engines do with single
/// files. A new file that is renamed to the outer name never appears at such a path. Follows links.
/// Returns `false` on kernels before Linux 5.8, which do not report it (statx(2),
/// `STATX_ATTR_MOUNT_ROOT`).
#[must_use]
pub fn is_mounted_by_itself(path: &Path) -> bool {
    statx(CWD, path, AtFlags::empty(), StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinguishes_a_mount_from_its_files() {
        assert!(is_mounted_by_itself(Path::new("/proc")));
        assert!(!is_mounted_by_itself(Path::new("/proc/self/stat")));
        assert!(!is_mounted_by_itself(Path::new("/none")));
    }
}
