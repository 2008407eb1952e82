//! Binds the socket. It has the right mode from the first moment and never replaces the socket of a
//! running process.

use std::{
    collections::hash_map::RandomState,
    fs::{self, File, Permissions},
    hash::BuildHasher as _,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::sync::mpsc;

use super::{
    address::{ADDRESS_MAX, SocketAddress},
    bind_error::BindError,
    socket_directory::{LOCK_WAIT, lock_directory, open_directory},
    socket_file::SocketFile,
};

/// Lets owner and group connect, and no other user.
const MODE: u32 = 0o770;

/// Most connections that may wait to be accepted. The system lowers it to its own limit
/// (`net.core.somaxconn`, 4096 by default). When the backlog is full, the `connect` of Go fails at
/// once instead of waiting.
const BACKLOG: i32 = i32::MAX;

/// A listening socket and its file.
#[derive(Debug)]
pub struct BoundSocket {
    /// The listener, non-blocking.
    pub listener: UnixListener,
    /// The address of the listener.
    pub address: SocketAddress,
    /// The file of the socket. `None` for an abstract socket.
    pub file: Option<SocketFile>,
    /// Whether this process bound the socket and so removes its file at the end. False for a socket
    /// that systemd passed.
    pub ours: bool,
}

/// The listener that was bound first, and the listeners that replace it.
#[derive(Debug)]
pub struct Listeners {
    pub(super) first: UnixListener,
    pub(super) replacements: mpsc::Receiver<UnixListener>,
}

impl BoundSocket {
    /// Binds `address` and listens on it.
    ///
    /// Makes a file socket under a temporary name, sets its mode, makes it listen, and then moves
    /// it to its place in one step. So a client can never reach it with another mode, and the umask
    /// of the process stays as it is. The same step replaces a stale socket. A lock on the
    /// directory keeps two starting processes from replacing the sockets of each other. Every
    /// process that may read the directory can hold that lock, so after a second the socket is
    /// bound without it, with a warning.
    ///
    /// # Errors
    /// Returns [`BindError`], whose message ends with the remedy.
    pub fn bind(address: &SocketAddress) -> Result<Self, BindError> {
        match address {
            SocketAddress::Abstract(name) => Self::bind_abstract(address, name),
            SocketAddress::File(path) => Self::bind_file(address, path),
        }
    }

    fn bind_abstract(address: &SocketAddress, name: &str) -> Result<Self, BindError> {
        let failed =
            |source| BindError::System { action: "bind", address: address.clone(), source };
        let system_address = SocketAddr::from_abstract_name(name).map_err(failed)?;
        let listener = UnixListener::bind_addr(&system_address).map_err(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                in_use(address, peer_of(&try_connect(format!("\0{name}"))))
            } else {
                failed(error)
            }
        })?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, address: address.clone(), file: None, ours: true })
    }

    fn bind_file(address: &SocketAddress, path: &Path) -> Result<Self, BindError> {
        let failed =
            |action| move |source| BindError::System { action, address: address.clone(), source };
        let directory = path.parent().unwrap_or(Path::new("/"));
        let _lock = lock_unless_held(address, directory)?;
        refuse_occupied(address, path)?;
        let draft = draft_path(path);
        let socket =
            Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("open a socket"))?;
        let draft_address = SockAddr::unix(&draft).map_err(failed("name the socket"))?;
        socket.bind(&draft_address).map_err(failed("bind"))?;
        let published = publish(&socket, &draft, path);
        if published.is_err() {
            drop(fs::remove_file(&draft));
        }
        let file = published.map_err(failed("put the socket in its place"))?;
        socket.set_nonblocking(true).map_err(failed("set up the socket"))?;
        Ok(Self { listener: socket.into(), address: address.clone(), file: Some(file), ours: true })
    }
}

/// Locks `directory`. Returns `None` when another process holds the lock for longer than
/// [`LOCK_WAIT`].
fn lock_unless_held(address: &SocketAddress, directory: &Path) -> Result<Option<File>, BindError> {
    match lock_directory(address, directory, LOCK_WAIT) {
        Ok(lock) => Ok(Some(lock)),
        Err(error @ BindError::Locked { .. }) => {
            tracing::warn!(%error, "binding the socket without the lock on its directory");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Sets the mode, listens, and moves the socket from `draft` to `path`. Sets the mode before
/// `listen`, because clients can connect only after it.
fn publish(socket: &Socket, draft: &Path, path: &Path) -> io::Result<SocketFile> {
    fs::set_permissions(draft, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    let file = SocketFile::pin(draft, path)?;
    fs::rename(draft, path)?;
    Ok(file)
}

/// Returns a path for the unfinished socket in the directory of `path`. Others cannot occupy it
/// before, because it is random. It is not longer than an address may be.
fn draft_path(path: &Path) -> PathBuf {
    let random = RandomState::new().hash_one(path);
    let directory = path.as_os_str().len() - path.file_name().unwrap_or_default().len();
    let mut name = format!("~{random:016x}");
    name.truncate(ADDRESS_MAX.saturating_sub(directory).max(1));
    path.with_file_name(name)
}

/// What is at an address at which a socket will be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupancy {
    /// Nothing is there.
    Free,
    /// The socket of a process that has ended. [`BoundSocket::bind`] replaces it.
    Stale,
    /// A running process listens there.
    Served {
        /// Its user, if it is another one than that of this process, which then is root.
        uid: Option<u32>,
    },
}

/// Reports whether `address` could be bound. Changes nothing.
///
/// # Errors
/// Returns why it could not be bound, for all reasons but a process that listens there and belongs to root
/// or to the user of this process: that is [`Occupancy::Served`]. For root it may belong to any user, because
/// root may look for the provider of another user.
pub fn inspect(address: &SocketAddress) -> Result<Occupancy, BindError> {
    let path = match address {
        SocketAddress::File(path) => path,
        SocketAddress::Abstract(name) => {
            let connection = try_connect(format!("\0{name}"));
            if is_served(&connection) {
                return served(in_use(address, peer_of(&connection)));
            }
            return Ok(Occupancy::Free);
        }
    };
    open_directory(address, path.parent().unwrap_or(Path::new("/")))?;
    match refuse_occupied(address, path) {
        Ok(()) if fs::symlink_metadata(path).is_ok() => Ok(Occupancy::Stale),
        Ok(()) => Ok(Occupancy::Free),
        Err(error) => served(error),
    }
}

const ROOT: u32 = 0;

/// Returns what `error` says of a process that listens.
fn served(error: BindError) -> Result<Occupancy, BindError> {
    match error {
        // systemd listens as root for its sockets. Root can take over any socket anyway.
        BindError::InUse(_) | BindError::InUseByAnother { uid: ROOT, .. } => {
            Ok(Occupancy::Served { uid: None })
        }
        BindError::InUseByAnother { uid, own: ROOT, .. } => {
            Ok(Occupancy::Served { uid: Some(uid) })
        }
        other => Err(other),
    }
}

/// Connects without waiting: a process that hangs may have a full backlog.
fn try_connect(path: impl AsRef<Path>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// Returns the error for an `address` that a process of the user `uid` holds.
fn in_use(address: &SocketAddress, uid: Option<u32>) -> BindError {
    let own = rustix::process::geteuid().as_raw();
    match uid {
        Some(uid) if uid != own => BindError::InUseByAnother { address: address.clone(), uid, own },
        _ => BindError::InUse(address.clone()),
    }
}

/// Returns the uid of the process that listens, if the connection succeeded.
fn peer_of(connection: &io::Result<Socket>) -> Option<u32> {
    let peer = rustix::net::sockopt::socket_peercred(connection.as_ref().ok()?);
    peer.ok().map(|peer| peer.uid.as_raw())
}

fn refuse_occupied(address: &SocketAddress, path: &Path) -> Result<(), BindError> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    let kind = found.file_type();
    if !kind.is_socket() {
        let kind = if kind.is_symlink() {
            "a symbolic link"
        } else if kind.is_dir() {
            "a directory"
        } else {
            "not a socket"
        };
        return Err(BindError::NotASocket { path: path.to_owned(), kind });
    }
    let connection = try_connect(path);
    if !is_served(&connection) {
        return Ok(());
    }
    // The mode of the file or a full backlog can forbid the connection. The owner of the file bound it.
    Err(in_use(address, Some(peer_of(&connection).unwrap_or(found.uid()))))
}

/// Returns whether a process listens: the connection succeeded, or failed in another way than
/// "refused" or "not found".
fn is_served(connection: &io::Result<Socket>) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    !connection.as_ref().is_err_and(|error| matches!(error.kind(), ConnectionRefused | NotFound))
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{fs::symlink, net::UnixStream},
        time::Duration,
    };

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn at(directory: &tempfile::TempDir, name: &str) -> (PathBuf, SocketAddress) {
        let path = directory.path().join(name);
        (path.clone(), SocketAddress::File(path))
    }

    #[test]
    fn creates_the_file_with_its_mode_and_removes_it() {
        let directory = tempfile::tempdir().unwrap();
        let (path, address) = at(&directory, "k.sock");
        let bound = BoundSocket::bind(&address).unwrap();
        assert_eq!(mode(&path), 0o770);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no draft is left behind");
        UnixStream::connect(&path).unwrap();
        bound.file.unwrap().remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn replaces_a_stale_socket_and_no_live_one() {
        let directory = tempfile::tempdir().unwrap();
        let (path, address) = at(&directory, "k.sock");
        drop(UnixListener::bind(&path).unwrap());
        let first = BoundSocket::bind(&address).unwrap();
        assert!(matches!(BoundSocket::bind(&address), Err(BindError::InUse(_))));
        UnixStream::connect(&path).unwrap();
        drop(first);
    }

    #[test]
    fn a_lock_that_stays_taken_does_not_stop_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let (path, address) = at(&directory, "k.sock");
        let _held = lock_directory(&address, directory.path(), Duration::ZERO).unwrap();
        let _bound = BoundSocket::bind(&address).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn inspect_reports_what_is_at_the_address_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (path, address) = at(&directory, "k.sock");
        assert_eq!(inspect(&address).unwrap(), Occupancy::Free);
        let live = UnixListener::bind(&path).unwrap();
        assert_eq!(inspect(&address).unwrap(), Occupancy::Served { uid: None });
        drop(live);
        assert_eq!(inspect(&address).unwrap(), Occupancy::Stale);
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(matches!(inspect(&address), Err(BindError::NotASocket { .. })));
        let address = SocketAddress::Abstract(path.display().to_string());
        assert_eq!(inspect(&address).unwrap(), Occupancy::Free);
        let _live = BoundSocket::bind(&address).unwrap();
        assert_eq!(inspect(&address).unwrap(), Occupancy::Served { uid: None });
    }

    #[test]
    fn inspect_passes_no_process_of_another_user_unless_root_looks() {
        let address = SocketAddress::Abstract("k".to_owned());
        let by = |uid, own| BindError::InUseByAnother { address: address.clone(), uid, own };
        assert!(matches!(served(by(2, 1)), Err(BindError::InUseByAnother { .. })));
        assert_eq!(served(by(2, ROOT)).unwrap(), Occupancy::Served { uid: Some(2) });
        // The socket of a systemd unit.
        assert_eq!(served(by(ROOT, 1)).unwrap(), Occupancy::Served { uid: None });
    }

    #[test]
    fn leaves_files_that_are_not_sockets() {
        let directory = tempfile::tempdir().unwrap();
        let (file, file_address) = at(&directory, "file");
        let (folder, folder_address) = at(&directory, "folder");
        let (link, link_address) = at(&directory, "link");
        fs::write(&file, "keep me").unwrap();
        fs::create_dir(&folder).unwrap();
        symlink("nowhere", &link).unwrap();
        for address in [&file_address, &folder_address, &link_address] {
            let error = BoundSocket::bind(address).unwrap_err();
            assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "keep me");
        assert!(folder.is_dir() && link.is_symlink());
    }

    #[test]
    fn names_a_missing_directory() {
        let directory = tempfile::tempdir().unwrap();
        let (_, address) = at(&directory, "none/k.sock");
        let error = BoundSocket::bind(&address).unwrap_err().to_string();
        assert!(error.contains("none does not exist; create it"), "{error}");
    }

    #[test]
    fn binds_the_longest_path() {
        let directory = tempfile::tempdir().unwrap();
        let fill = ADDRESS_MAX - directory.path().as_os_str().len() - 1;
        let (path, address) = at(&directory, &"x".repeat(fill));
        BoundSocket::bind(&address).unwrap();
        assert_eq!(mode(&path), 0o770);
    }

    #[test]
    fn a_draft_has_a_random_name_that_fits() {
        for length in [1, 8, 60, 100, ADDRESS_MAX - 3] {
            let directory = format!("/{}", "d".repeat(length));
            let [one, two] = [0, 1].map(|_| draft_path(&Path::new(&directory).join("k")));
            assert!(one.as_os_str().len() <= ADDRESS_MAX, "{}", one.display());
            assert_eq!(one.parent(), Some(Path::new(&directory)));
            assert_eq!(one == two, length == ADDRESS_MAX - 3, "{}", one.display());
        }
    }
}
