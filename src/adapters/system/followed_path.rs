//! Follows the symbolic links of a path, except one that another user may have put into it.
//!
//! In a directory such as `/tmp`, which is sticky and writable for all users, a link of another user
//! may lead to a secret that was not meant. The rule is that of the kernel's
//! `fs.protected_symlinks`, which is not on everywhere.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, openat, openat2, statfs},
    io::Errno,
};

/// The most symbolic links of one path, as for the kernel.
const LINKS_MAX: usize = 40;

/// Neither waits for the writer of a pipe nor takes a terminal.
const READ_ONLY: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Says what happens to a symbolic link that is the last part of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastLink {
    /// The path leads to the target of the link.
    Followed,
    /// The path leads to the link itself, which cannot be opened.
    Kept,
}

/// A path whose symbolic links were followed and found safe.
#[derive(Debug)]
pub(super) struct FollowedPath {
    /// Has no symbolic link, except a link of `/proc` to an open file.
    path: PathBuf,
    /// Whether the path has such a link of `/proc`. Only the kernel can follow it, and no
    /// other user can put one there.
    has_magic: bool,
    last: LastLink,
}

impl FollowedPath {
    /// Follows the symbolic links of `path`.
    ///
    /// # Errors
    /// The outer error is the kernel's: the path leads to no file. The inner one refuses a link of
    /// another user, in words that follow the path.
    pub(super) fn of(path: &Path, last: LastLink) -> io::Result<Result<Self, String>> {
        if path.as_os_str().is_empty() {
            return Err(Errno::NOENT.into());
        }
        let parts = |path: &Path| -> Vec<PathBuf> {
            path.components().rev().map(|part| PathBuf::from(part.as_os_str())).collect()
        };
        let mut followed = Self { path: PathBuf::from("."), has_magic: false, last };
        let (mut rest, mut links) = (parts(path), 0);
        while let Some(part) = rest.pop() {
            if part.is_absolute() {
                followed.has_magic = false;
            }
            let next = followed.path.join(&part);
            let found = fs::symlink_metadata(&next)?;
            if !found.is_symlink() || (rest.is_empty() && last == LastLink::Kept) {
                followed.path = next;
                continue;
            }
            if is_foreign(&found, &fs::metadata(&followed.path)?) {
                return Ok(Err(format!(
                    "leads through the symbolic link {} of uid {}, in a directory that every user may \
                     write to; put the file into a directory of its own",
                    next.display(),
                    found.uid()
                )));
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(Errno::LOOP.into());
            }
            if statfs(&followed.path)?.f_type == PROC_SUPER_MAGIC {
                followed = Self { path: next, has_magic: true, last };
                continue;
            }
            rest.extend(parts(&fs::read_link(&next)?));
        }
        Ok(Ok(followed))
    }

    /// Returns the metadata of the file, or of the link that is kept.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        let follows = self.has_magic && self.last == LastLink::Followed;
        if follows { fs::metadata(&self.path) } else { fs::symlink_metadata(&self.path) }
    }

    /// Opens the file for reading, and does not wait for the writer of a pipe.
    ///
    /// # Errors
    /// Returns the kernel's error: `ELOOP` if a part of the path has become a symbolic link since it
    /// was followed. Linux before 5.6 does not know `openat2`: there only the last part is safe.
    pub(super) fn open(&self) -> io::Result<File> {
        if self.has_magic {
            return self.open_with(self.last == LastLink::Kept);
        }
        let no_links = ResolveFlags::NO_SYMLINKS;
        match openat2(CWD, &self.path, READ_ONLY, Mode::empty(), no_links) {
            // Older filters of containers answer EPERM for a call that they do not know.
            Err(Errno::NOSYS | Errno::PERM) => self.open_with(true),
            opened => Ok(opened?.into()),
        }
    }

    fn open_with(&self, refuses_last_link: bool) -> io::Result<File> {
        let mut flags = READ_ONLY;
        flags.set(OFlags::NOFOLLOW, refuses_last_link);
        Ok(openat(CWD, &self.path, flags, Mode::empty())?.into())
    }
}

/// Says whether a link in a shared directory belongs neither to this process nor to the directory's
/// owner.
fn is_foreign(link: &Metadata, directory: &Metadata) -> bool {
    let is_shared = directory.mode() & 0o1002 == 0o1002;
    let ours = rustix::process::geteuid().as_raw();
    is_shared && ![directory.uid(), ours].contains(&link.uid())
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        os::{
            fd::AsRawFd as _,
            unix::fs::{PermissionsExt as _, lchown, symlink},
        },
        sync::mpsc,
        thread,
    };

    use rustix::fs::{RenameFlags, renameat_with};

    use super::*;

    fn at_once(path: &Path) -> Result<Vec<u8>, String> {
        let read = || -> io::Result<_> {
            let mut content = Vec::new();
            match FollowedPath::of(path, LastLink::Followed)? {
                Ok(followed) => followed.open()?.read_to_end(&mut content)?,
                Err(refusal) => return Ok(Err(refusal)),
            };
            Ok(Ok(content))
        };
        read().map_err(|error| error.to_string()).flatten()
    }

    /// Another user's link may lead to a secret that was not meant.
    #[test]
    fn follows_no_link_of_another_user_in_a_shared_directory() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("secret"), "x").unwrap();
        symlink(at("secret"), at("link")).unwrap();
        symlink(".", at("way")).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(at("link"), elsewhere.path().join("through")).unwrap();
        let mode = |mode| {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
        };
        for path in [at("link"), at("way/secret")] {
            mode(0o755);
            assert!(at_once(&path).is_ok(), "{}", path.display());
            mode(0o1777);
            assert!(at_once(&path).is_ok(), "our own: {}", path.display());
        }
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT RUN: a link of another uid, because only root can make one");
            assert!(std::env::var_os("CI").is_none(), "CI runs it as root");
            return;
        }
        for (path, link) in [
            (at("link"), at("link")),
            (elsewhere.path().join("through"), at("link")),
            (at("way/secret"), at("way")),
        ] {
            lchown(&link, Some(65_534), None).unwrap();
            let problem = at_once(&path).unwrap_err();
            assert!(problem.contains(&format!("{} of uid 65534", link.display())), "{problem}");
            // A directory that is not sticky is shared on purpose, for example with a sidecar.
            for other in [0o755, 0o777] {
                mode(other);
                assert!(at_once(&path).is_ok(), "{}", path.display());
            }
            mode(0o1777);
        }
    }

    /// Between the check of the links and the open.
    #[test]
    fn follows_no_link_that_is_exchanged_meanwhile() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT RUN: a link of another uid, because only root can make one");
            assert!(std::env::var_os("CI").is_none(), "CI runs it as root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["secret", "harmless"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), name).unwrap();
        }
        symlink("secret", at("link")).unwrap();
        lchown(at("link"), Some(65_534), None).unwrap();
        let (harmless, link, path) = (at("harmless"), at("link"), at("harmless/file"));
        let (stop, stopped) = mpsc::channel::<()>();
        let exchanging = thread::spawn(move || {
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                renameat_with(CWD, &harmless, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let results: Vec<_> = (0..20_000).map(|_| at_once(&path)).collect();
        drop(stop);
        exchanging.join().unwrap();
        let reads =
            |content: &[u8]| results.iter().flatten().filter(|r| r.as_slice() == content).count();
        assert_eq!(reads(b"secret"), 0, "of {} reads", results.len());
        assert!(reads(b"harmless") > 0);
    }

    /// As Linux before 5.6 does.
    #[test]
    fn refuses_a_link_as_the_last_part_without_openat2() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "x").unwrap();
        let followed = FollowedPath::of(&path, LastLink::Followed).unwrap().unwrap();
        followed.open_with(true).unwrap();
        fs::rename(&path, directory.path().join("secret")).unwrap();
        symlink("secret", &path).unwrap();
        assert_eq!(
            followed.open_with(true).unwrap_err().raw_os_error(),
            Some(Errno::LOOP.raw_os_error())
        );
        assert_eq!(followed.open().unwrap_err().raw_os_error(), Some(Errno::LOOP.raw_os_error()));
    }

    /// As the configuration of process substitution comes.
    #[test]
    fn lets_the_kernel_follow_a_link_to_an_open_file() {
        let file = tempfile::tempfile().unwrap();
        let path = format!("/dev/fd/{}", file.as_raw_fd());
        let kept = FollowedPath::of(Path::new(&path), LastLink::Kept).unwrap().unwrap();
        assert!(kept.metadata().unwrap().is_symlink());
        assert!(kept.open().is_err());
        let followed = FollowedPath::of(Path::new(&path), LastLink::Followed).unwrap().unwrap();
        assert!(followed.metadata().unwrap().is_file());
        followed.open().unwrap();
    }

    /// The path then has no link of `/proc` left.
    #[test]
    fn a_link_that_leaves_proc_is_followed_as_any_other() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("file");
        fs::write(&target, "x").unwrap();
        symlink(&target, directory.path().join("link")).unwrap();
        let open = File::open(directory.path()).unwrap();
        let path = format!("/dev/fd/{}/link", open.as_raw_fd());
        let followed = FollowedPath::of(Path::new(&path), LastLink::Followed).unwrap().unwrap();
        assert_eq!((followed.path.as_path(), followed.has_magic), (target.as_path(), false));
    }
}
