//! Restricts this process to what it needs after its start: no privileges, few files, few TCP
//! ports, and only the system calls that it makes (`docs/sandbox.md`).
//!
//! Capabilities and Landlock apply to the calling thread and to threads that it starts later, so
//! [`enter`] runs on the main thread before any other thread starts. Seccomp applies to all
//! threads. Older threads can only be those that wait for a file of the settings on a file system that
//! does not answer.

mod calls;
mod files;
mod places;
mod privileges;
mod resolver;

use std::{
    fmt, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::bounded_file::{READ_TIMEOUT, in_time};

/// Whether Landlock restricts this process.
static IN_FORCE: AtomicBool = AtomicBool::new(false);

/// Reports a file that the sandbox refuses. The text follows the path of the file.
const REFUSED: &str = "is outside of the sandbox, which admits the directories that existed at \
    the start; restart this process (docs/sandbox.md)";

/// What this process uses after its start.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Files that are read. They may appear, or be replaced, later.
    pub read: Vec<PathBuf>,
    /// Files that are written, created or replaced.
    pub written: Vec<PathBuf>,
    /// Directories in which files are read, written, made and removed, at any depth. A plain file counts
    /// as one of `written`.
    pub trees: Vec<PathBuf>,
    /// Sockets that are bound. Their directory may be replaced later.
    pub sockets: Vec<PathBuf>,
    /// Sockets of other processes to connect to. They may appear, or be replaced, later. Landlock
    /// does not restrict connections to sockets by path, so this only keeps a capability that
    /// a connection needs.
    pub peers: Vec<PathBuf>,
    /// TCP ports to connect to, on any host.
    pub ports: Vec<u16>,
    /// Whether host names are resolved.
    pub names: bool,
    /// Whether this process connects to abstract sockets of other processes, or to one that it
    /// bound before the sandbox.
    pub abstract_sockets: bool,
}

impl Needs {
    /// Adds connections to `port` of `host`. `host` is a name, which is resolved, or an IP address
    /// with or without brackets.
    pub fn connect(&mut self, host: &str, port: u16) {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        self.names |= address.parse::<IpAddr>().is_err();
        self.ports.push(port);
    }
}

/// The restrictions of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Restrictions that are in force, each in a few words.
    pub in_force: Vec<String>,
    /// Restrictions that are missing, each with its cause and remedy.
    pub missing: Vec<String>,
    /// Restrictions that a newer kernel would add, each with the version of that kernel.
    pub newer: Vec<String>,
}

impl Report {
    fn of(restriction: String) -> Self {
        Self { in_force: vec![restriction], ..Self::default() }
    }

    fn without(restriction: String) -> Self {
        Self { missing: vec![restriction], ..Self::default() }
    }

    fn extend(&mut self, part: Self) {
        self.in_force.extend(part.in_force);
        self.missing.extend(part.missing);
        self.newer.extend(part.newer);
    }
}

impl fmt::Display for Report {
    /// Writes what is restricted, and what a newer kernel would add.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_force.join(", "))?;
        self.newer.iter().try_for_each(|newer| write!(f, "; {newer}"))
    }
}

/// Restricts this process until it ends. Call it on the main thread while no other thread runs,
/// after the sockets and ports are bound.
///
/// Skips and reports what the kernel does not support. Keeps the capabilities, restricts no files, and
/// reports that, when the file system of a path does not answer within 5 s: the provider must serve
/// without this file too.
#[must_use]
pub fn enter(needs: &Needs) -> Report {
    // The steps look at each path on this thread, which waits without end for a file system that hangs.
    let look = |path: PathBuf| drop(std::fs::metadata(path));
    let silent = without_answer(needs, READ_TIMEOUT, look);
    let mut report = privileges::drop_all(needs, silent.is_none());
    if let Some(path) = silent {
        report.missing.push(format!(
            "files and capabilities: {} could not be examined within 5 s; restart this process when \
             its file system answers",
            path.display()
        ));
    } else {
        let files = files::restrict(needs);
        IN_FORCE.store(!files.in_force.is_empty(), Ordering::Relaxed);
        report.extend(files);
    }
    // Comes last, because it forbids the system calls of the steps before.
    report.extend(calls::restrict());
    report
}

/// Returns the first path of `needs` for which `look` does not end within `limit` and a tenth more.
fn without_answer(
    needs: &Needs,
    limit: Duration,
    look: impl Fn(PathBuf) + Clone + Send + 'static,
) -> Option<&Path> {
    let Needs { read, written, trees, sockets, peers, .. } = needs;
    let mut all = [read, written, trees, sockets, peers].into_iter().flatten();
    let is_silent = |path: &&PathBuf| {
        let (path, look) = ((*path).clone(), look.clone());
        in_time(limit, move |_until| look(path)).is_err()
    };
    all.find(is_silent).map(PathBuf::as_path)
}

/// Reports what [`enter`] would restrict on this kernel. Changes nothing.
#[must_use]
pub fn available() -> Report {
    let mut report = files::available();
    report.extend(calls::available());
    report
}

/// Returns why `path` cannot be used with `access`, in words that follow the path, when the sandbox
/// is the cause of `error`. Returns `None` when the mode of the file is the cause.
pub(super) fn refusal(path: &Path, access: Access, error: &io::Error) -> Option<&'static str> {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    // `accessat` checks modes only.
    let allowed = || accessat(CWD, path, access, AtFlags::EACCESS).is_ok();
    (denied && IN_FORCE.load(Ordering::Relaxed) && allowed()).then_some(REFUSED)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use super::*;

    #[test]
    fn names_the_path_whose_file_system_does_not_answer() {
        let needs = Needs { read: vec!["a".into(), "b".into()], ..Needs::default() };
        let limit = Duration::from_secs(2);
        assert_eq!(without_answer(&needs, Duration::from_mins(1), drop), None);
        let (release, hangs) = mpsc::channel::<()>();
        let hangs = Arc::new(Mutex::new(hangs));
        let look = move |path: PathBuf| {
            if path == Path::new("b") {
                let _released = hangs.lock().unwrap().recv();
            }
        };
        assert_eq!(without_answer(&needs, limit, look), Some(Path::new("b")));
        drop(release);
    }
}
