//! The errors of binding the socket.

use std::{io, path::PathBuf, time::Duration};

use thiserror::Error;

use super::address::SocketAddress;

/// Why the socket could not be bound. Each message ends with the remedy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// A process answers on the address.
    #[error("{0} is in use by a running process; stop it or choose another --listen-address")]
    InUse(SocketAddress),
    /// A process of another user answers on the address. kube-apiserver gives its seeds to each
    /// process that listens there.
    #[error(
        "ALERT: {address} is in use by a process of uid {uid}, and this process has uid {own}; kube-apiserver gives that process its seeds. Stop it, and choose with --listen-address a path in a directory of mode 0750 that belongs to uid {own}"
    )]
    InUseByAnother {
        /// The address.
        address: SocketAddress,
        /// The uid of that process.
        uid: u32,
        /// The uid of this process.
        own: u32,
    },
    /// A file that is not a socket is at the address.
    #[error("{} exists and is {kind}; move it away or choose another --listen-address", path.display())]
    NotASocket {
        /// The path of the file.
        path: PathBuf,
        /// What the file is.
        kind: &'static str,
    },
    /// The directory does not exist.
    #[error("the directory {} does not exist; create it, owned by uid {uid}", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
        /// The uid of this process.
        uid: u32,
    },
    /// This process may not write to the directory.
    #[error("uid {uid} may not write to the directory {}; give it to that uid or run as its owner", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// The uid of this process.
        uid: u32,
    },
    /// The file system is read-only, as with `readOnlyRootFilesystem`.
    #[error("the directory {} is on a read-only file system; mount a writable volume there or choose another --listen-address", .0.display())]
    ReadOnly(PathBuf),
    /// Another process holds the lock on the directory. Every process that may read the directory
    /// can lock it.
    #[error("the directory {0} was locked by another process for {wait:?}; find it with `lsof {0}` and stop it, or choose a directory of the provider's own with --listen-address", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// How long this process waited for the lock.
        wait: Duration,
    },
    /// The socket that systemd passed to this process cannot be served.
    #[error("inherited-socket: {problem}; {remedy}")]
    Passed {
        /// What is wrong with the socket.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The file of the socket that systemd passed is gone. Only systemd can bind that socket again.
    #[error(
        "inherited-socket: systemd opened {0}, and its file was removed or replaced; run `systemctl restart` for the socket unit, then for the service"
    )]
    PassedAndLost(SocketAddress),
    /// Any other error of the system.
    #[error("cannot {action} for {address}: {source}; check --listen-address")]
    System {
        /// What this process tried to do.
        action: &'static str,
        /// The address of the socket.
        address: SocketAddress,
        /// The error of the system.
        source: io::Error,
    },
}
