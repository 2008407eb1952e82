//! Lists the files that the C library needs to resolve host names.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::adapters::system::place::is_mounted_by_itself;

/// The configuration of lookups and of the loader (`nsswitch.conf(5)`, `resolv.conf(5)`,
/// `gai.conf(5)`, `host.conf(5)`, `ld.so(8)`), and the libraries that resolve names.
const FIXED: [&str; 13] = [
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ld.so.cache",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/nix/store",
    "/run/systemd/resolve",
    "/run/resolvconf",
];

/// Files that other programs replace while this process runs.
const REPLACED: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Returns the files and directories that must be readable to resolve host names, also after the
/// network configuration has changed.
///
/// Programs replace `resolv.conf` and `hosts` by a rename. The new file is another inode, to which
/// a rule for the old file does not apply. So the result contains the real directory of each file:
/// the directory of the link target, or all of `/etc` if it is a plain file. In a container these
/// files are mounts of their own that nothing replaces, and the result contains only the files.
pub(super) fn files() -> Vec<PathBuf> {
    let replaced = REPLACED.map(Path::new).map(|path| {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match real.parent().filter(|directory| directory.parent().is_some()) {
            Some(directory) if !is_mounted_by_itself(&real) => directory.to_owned(),
            _ => real,
        }
    });
    FIXED.iter().map(PathBuf::from).chain(replaced).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_allows_the_root_directory() {
        assert!(files().iter().all(|path| path.parent().is_some()), "{:?}", files());
    }
}
