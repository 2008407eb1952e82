//! Reports how a file is placed: its permissions, and whether it is a mount of its own.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

/// Returns the permission bits of a file, or `None` when its metadata cannot be read.
#[must_use]
pub fn mode_of(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|found| found.mode() & 0o7777)
}

/// Returns which other users may create and remove files in `directory`, for a process of the user
/// `own` (`None`: not known) and the group `group`. Root may always, so it does not count. Returns
/// `None` when no other user may, or when the directory's metadata cannot be read.
#[must_use]
pub fn others_that_may_write(directory: &Path, own: Option<u32>, group: u32) -> Option<String> {
    let found = fs::metadata(directory).ok()?;
    if found.mode() & 0o002 != 0 {
        return Some("every user".to_owned());
    }
    if found.uid() != 0 && own.is_some_and(|own| own != found.uid()) {
        return Some(format!("uid {}", found.uid()));
    }
    let is_foreign = own.is_some() && ![0, group].contains(&found.gid());
    (is_foreign && found.mode() & 0o020 != 0).then(|| format!("group {}", found.gid()))
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
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn names_the_users_that_may_write_to_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let found = fs::metadata(&directory).unwrap();
        let (uid, gid) = (found.uid(), found.gid());
        let others = |mode: u32, own, group| {
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
            others_that_may_write(directory.path(), own, group)
        };
        assert_eq!(others(0o750, Some(uid), gid), None);
        assert_eq!(others(0o770, Some(uid), gid), None);
        assert_eq!(others(0o1777, Some(uid), gid).unwrap(), "every user");
        assert_eq!(others(0o1777, None, gid).unwrap(), "every user");
        // The owner or the group of the test's directory may be root, which does not count.
        let root_is = |id: u32, other: String| (id != 0).then_some(other);
        assert_eq!(others(0o750, Some(uid + 1), gid), root_is(uid, format!("uid {uid}")));
        assert_eq!(others(0o770, Some(uid), gid + 1), root_is(gid, format!("group {gid}")));
        assert_eq!(others(0o770, None, gid + 1), None);
        fs::remove_dir(&directory).unwrap();
        assert_eq!(others_that_may_write(directory.path(), Some(uid), gid), None);
    }

    #[test]
    fn distinguishes_a_mount_from_its_files() {
        assert!(is_mounted_by_itself(Path::new("/proc")));
        assert!(!is_mounted_by_itself(Path::new("/proc/self/stat")));
        assert!(!is_mounted_by_itself(Path::new("/none")));
    }
}
