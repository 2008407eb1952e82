//! Finds the directories that Landlock must allow so that a file can be used and replaced.
//!
//! A Landlock rule applies to a directory (an inode) and everything below it, not to a name. The
//! kernel checks the real place of a file; the links that lead there do not count.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

/// Most links to follow from one path, as in the kernel (`path_resolution(7)`).
const LINKS_MAX: usize = 40;

/// Returns the directories in which the file at `path`, which is read, is or may appear. These are
/// the directories of [`of_written`]. While the file does not exist, the directory above is added,
/// because something may be mounted over the nearest one.
pub(super) fn of_read(path: &Path) -> Vec<PathBuf> {
    let mut found = of_written(path);
    if !path.exists() {
        found.extend(path.parent().and_then(nearest).as_deref().and_then(above));
    }
    found
}

/// Returns the directories in which the file at `path`, which is written, is or may appear:
/// - the directory of its name, and the directory of each link that it leads through;
/// - the directory of a link in the path that points into its own directory (`..data` of the
///   kubelet): the next target will be there too;
/// - if the directory does not exist, the nearest directory above that exists.
///
/// The result never contains the root directory.
pub(super) fn of_written(path: &Path) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    let Ok(mut path) = std::path::absolute(path) else { return Vec::new() };
    for _ in 0..LINKS_MAX {
        let Some(directory) = path.parent() else { break };
        found.extend(nearest(directory));
        found.extend(directory.ancestors().filter_map(beside));
        let Ok(target) = fs::read_link(&path) else { break };
        path = directory.join(target);
    }
    found.retain(|directory| directory.parent().is_some());
    found.into_iter().collect()
}

/// Returns the directory at `path`, or the directories of [`of_written`] if `path` is not a directory.
pub(super) fn of_tree(path: &Path) -> Vec<PathBuf> {
    match fs::canonicalize(path) {
        Ok(found) if found.is_dir() => Vec::from_iter(found.parent().is_some().then_some(found)),
        _ => of_written(path),
    }
}

/// Returns the directories in which a socket at `path` is bound, now and after its directory was
/// replaced.
pub(super) fn of_socket(path: &Path) -> Vec<PathBuf> {
    let Ok(path) = std::path::absolute(path) else { return Vec::new() };
    let directory = path.parent().and_then(|directory| fs::canonicalize(directory).ok());
    let above = directory.as_deref().and_then(Path::parent).map(Path::to_owned);
    let found = directory.into_iter().chain(above);
    found.filter(|directory| directory.parent().is_some()).collect()
}

/// Returns the nearest existing directory at or above `directory`, with links resolved.
fn nearest(directory: &Path) -> Option<PathBuf> {
    directory.ancestors().find_map(|above| fs::canonicalize(above).ok())
}

/// Returns the directory above, unless that is directly below the root, such as `/etc`: it contains
/// too much.
fn above(directory: &Path) -> Option<PathBuf> {
    directory.parent().filter(|above| depth(above) > 1).map(Path::to_owned)
}

/// Returns the directory of the link at `path`, if the link points into that directory. Skips
/// directories directly below the root, such as `/var` with its link `/var/run`: they contain too
/// much.
fn beside(path: &Path) -> Option<PathBuf> {
    let target = fs::read_link(path).ok()?;
    let stays = target.components().all(|part| matches!(part, Component::Normal(_)));
    let directory = fs::canonicalize(path.parent()?).ok()?;
    (stays && depth(&directory) > 1).then_some(directory)
}

fn depth(path: &Path) -> usize {
    path.components().filter(|part| matches!(part, Component::Normal(_))).count()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn directory() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(directory.path()).unwrap();
        (directory, path)
    }

    #[test]
    fn allows_only_the_directory_of_a_plain_file() {
        let (_kept, root) = directory();
        fs::write(root.join("id"), "").unwrap();
        assert_eq!(of_read(&root.join("id")), [root]);
    }

    #[test]
    fn allows_the_whole_volume_of_the_kubelet() {
        let (_kept, root) = directory();
        fs::create_dir(root.join("..1")).unwrap();
        fs::write(root.join("..1/id"), "").unwrap();
        symlink("..1", root.join("..data")).unwrap();
        symlink("..data/id", root.join("id")).unwrap();
        for path in [root.join("id"), root.join("..data/id")] {
            assert!(of_read(&path).contains(&root), "{:?}", of_read(&path));
        }
    }

    #[test]
    fn allows_the_directory_of_each_link_and_of_the_target() {
        let (_kept, root) = directory();
        for name in ["a", "b", "c"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        fs::write(root.join("c/id"), "").unwrap();
        symlink(root.join("c/id"), root.join("b/id")).unwrap();
        symlink("../b/id", root.join("a/id")).unwrap();
        assert_eq!(of_read(&root.join("a/id")), [root.join("a"), root.join("b"), root.join("c")]);
    }

    #[test]
    fn allows_the_nearest_directory_of_a_missing_file_and_the_one_above() {
        let (_kept, root) = directory();
        let above = root.parent().unwrap().to_owned();
        fs::create_dir(root.join("a")).unwrap();
        assert_eq!(of_read(&root.join("a/id")), [root.join("a"), root.clone()]);
        assert_eq!(of_written(&root.join("a/id")), [root.join("a")]);
        let missing = of_read(&root.join("none/none/id"));
        assert!(missing.contains(&root) && !missing.contains(&above.join("none")), "{missing:?}");
    }

    #[test]
    fn never_allows_the_root_directory() {
        assert!(of_read(Path::new("/none/id")).is_empty());
        assert!(of_read(Path::new("/id")).is_empty());
        assert_eq!(of_read(Path::new("/etc/none")), [Path::new("/etc")]);
        assert_eq!(of_socket(Path::new("/tmp/k.sock")), [Path::new("/tmp")]);
    }

    #[test]
    fn allows_a_tree_alone() {
        let (_kept, root) = directory();
        fs::create_dir(root.join("a")).unwrap();
        assert_eq!(of_tree(&root.join("a")), [root.join("a")]);
        fs::write(root.join("a/file"), "").unwrap();
        assert_eq!(of_tree(&root.join("a/file")), [root.join("a")]);
        assert!(of_tree(Path::new("/")).is_empty());
    }

    #[test]
    fn allows_the_directory_of_a_socket_and_the_one_above() {
        let (_kept, root) = directory();
        let above = root.parent().unwrap().to_owned();
        let socket = of_socket(&root.join("k.sock"));
        assert!(socket.contains(&root));
        assert_eq!(socket.contains(&above), above.parent().is_some());
    }
}
