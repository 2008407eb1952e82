//! Why a socket cannot be bound.

use std::{io, path::PathBuf, time::Duration};

use thiserror::Error;

use super::address::SocketAddress;

/// Why the socket could not be bound. Each message ends with the remedy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// Something answers on the address.
    #[error("{0} is in use by a running process; stop it or choose another --listen-address")]
    InUse(SocketAddress),
    /// A process of another user answers on the address. kube-apiserver gives its seeds to whatever
    /// listens there.
    #[error(
        "ALERT: {address} is in use by a process of uid {uid}, and this process has uid {own}; kube-apiserver gives that process its seeds. Stop it, and choose with --listen-address a path in a directory of mode 0750 that belongs to uid {own}"
    )]
    InUseByAnother {
        /// The address.
        address: SocketAddress,
        /// The uid of the process that listens.
        uid: u32,
        /// Our uid.
        own: u32,
    },
    /// Something that is no socket stands there.
    #[error("{} exists and is {kind}; move it away or choose another --listen-address", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// There is no such directory.
    #[error("the directory {} does not exist; create it, owned by uid {uid}", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
        /// Our uid.
        uid: u32,
    },
    /// The directory is not ours to write.
    #[error("uid {uid} may not write to the directory {}; give it to that uid or run as its owner", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// Our uid.
        uid: u32,
    },
    /// The file system takes no writes, as with `readOnlyRootFilesystem`.
    #[error("the directory {} is on a read-only file system; mount a writable volume there or choose another --listen-address", .0.display())]
    ReadOnly(PathBuf),
    /// Another process holds the lock on the directory. Any process that may read the directory can.
    #[error("the directory {0} was locked by another process for {wait:?}; find it with `lsof {0}` and stop it, or choose a directory of the provider's own with --listen-address", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// How long the lock was waited for.
        wait: Duration,
    },
    /// What systemd passed to this process cannot be served.
    #[error("inherited-socket: {problem}; {remedy}")]
    Passed {
        /// What is wrong with it.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The file of the socket that systemd passed to this process is gone. What listens is systemd's, so
    /// it cannot be bound anew here.
    #[error(
        "inherited-socket: systemd opened {0}, and its file was removed or replaced; run `systemctl restart` for the socket unit, then for the service"
    )]
    PassedAndLost(SocketAddress),
    /// Anything else the system said.
    #[error("cannot {action} for {address}: {source}; check --listen-address")]
    System {
        /// What was tried.
        action: &'static str,
        /// For which address.
        address: SocketAddress,
        /// What the system said.
        source: io::Error,
    },
}
