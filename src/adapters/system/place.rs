//! How a file stands in its place: its permissions, and whether it is mounted by itself.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

/// Returns the permission bits of a file, where it can be looked at.
#[must_use]
pub fn mode_of(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|found| found.mode() & 0o7777)
}

/// Returns whether something is mounted at `path` itself, as container engines do with single files:
/// a new file that is renamed to its name outside never arrives. Links are followed. A kernel before
/// Linux 5.8 does not tell (statx(2), `STATX_ATTR_MOUNT_ROOT`): `false`.
#[must_use]
pub fn is_mounted_by_itself(path: &Path) -> bool {
    statx(CWD, path, AtFlags::empty(), StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_told_from_what_is_on_it() {
        assert!(is_mounted_by_itself(Path::new("/proc")));
        assert!(!is_mounted_by_itself(Path::new("/proc/self/stat")));
        assert!(!is_mounted_by_itself(Path::new("/none")));
    }
}
