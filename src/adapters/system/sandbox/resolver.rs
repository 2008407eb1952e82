//! The files by which the C library looks up host names.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::adapters::system::place::is_mounted_by_itself;

/// The configuration of lookups and of the loader (`nsswitch.conf(5)`, `resolv.conf(5)`,
/// `gai.conf(5)`, `host.conf(5)`, `ld.so(8)`), and the libraries that do them.
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

/// The files that other programs replace while this process runs.
const REPLACED: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// What is to be opened for reading so that host names are looked up, also after the network
/// changed.
///
/// Programs replace `resolv.conf` and `hosts` by a rename. The new file is another inode, to which
/// a rule for the former one does not apply. So the directory is opened in which they really are:
/// that of a link's target, or all of `/etc` on hosts where they are plain files. In a container
/// they are mounts of their own that nothing replaces, and only they are opened.
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
    fn the_root_directory_is_never_opened() {
        assert!(files().iter().all(|path| path.parent().is_some()), "{:?}", files());
    }
}
