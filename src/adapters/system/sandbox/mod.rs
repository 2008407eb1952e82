//! Restricts this process to what it needs after its start: no privileges, few files, few TCP
//! ports, and the system calls that it makes (`docs/sandbox.md`).
//!
//! Capabilities and Landlock hold for the calling thread and for the threads that it starts later,
//! so [`enter`] runs on the main thread before any other thread is started. The system calls are
//! restricted for all threads. The one thread that may be older reads a file of a file system that
//! does not answer; it can use nothing but that file.

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
};

use rustix::fs::{Access, AtFlags, CWD, accessat};

/// Whether Landlock restricts this process.
static IN_FORCE: AtomicBool = AtomicBool::new(false);

/// What is told of a file that the sandbox refuses, in words that follow its path.
const REFUSED: &str = "is outside of the sandbox, which admits the directories that were there at \
    the start; restart this process (docs/sandbox.md)";

/// What this process uses after its start.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Files that are read. They may appear, or be replaced, later.
    pub read: Vec<PathBuf>,
    /// Files that are written, and made or replaced in their directory.
    pub written: Vec<PathBuf>,
    /// Sockets that are bound. Their directory may be replaced later.
    pub sockets: Vec<PathBuf>,
    /// TCP ports that are connected to, on any host.
    pub ports: Vec<u16>,
    /// Whether host names are looked up.
    pub names: bool,
    /// Whether abstract sockets of other processes, or from before the sandbox, are connected to.
    pub abstract_sockets: bool,
}

impl Needs {
    /// Adds connections to `port` of `host`: a name, which is looked up, or an IP address, with or
    /// without brackets.
    pub fn connect(&mut self, host: &str, port: u16) {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        self.names |= address.parse::<IpAddr>().is_err();
        self.ports.push(port);
    }
}

/// What is restricted, and what is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The restrictions, each in a few words.
    pub in_force: Vec<String>,
    /// The restrictions that are missing, each with its cause and remedy.
    pub missing: Vec<String>,
    /// The restrictions that a newer kernel would add, each with that kernel's version.
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
    /// What is restricted, and what a newer kernel would add.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_force.join(", "))?;
        self.newer.iter().try_for_each(|newer| write!(f, "; {newer}"))
    }
}

/// Restricts this process for ever. To be called on the main thread while no other runs, once
/// sockets and ports are bound.
///
/// What the kernel does not offer is left out and reported.
#[must_use]
pub fn enter(needs: &Needs) -> Report {
    let mut report = privileges::drop_all(needs);
    IN_FORCE.store(true, Ordering::Relaxed);
    report.extend(files::restrict(needs));
    // The last one: it refuses the system calls of the former.
    report.extend(calls::restrict());
    report
}

/// What [`enter`] would restrict on this kernel. Changes nothing.
#[must_use]
pub fn available() -> Report {
    let mut report = files::available();
    report.extend(calls::available());
    report
}

/// Why `path` cannot be used with `access`, where the sandbox and not the file's mode is the cause
/// of `error`, in words that follow the path.
pub(super) fn refusal(path: &Path, access: Access, error: &io::Error) -> Option<&'static str> {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    // This call looks at modes alone.
    let allowed = || accessat(CWD, path, access, AtFlags::EACCESS).is_ok();
    (denied && IN_FORCE.load(Ordering::Relaxed) && allowed()).then_some(REFUSED)
}
