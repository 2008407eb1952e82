//! Binding the socket: right mode from the first moment, never over anything that lives.

use std::{
    ffi::OsString,
    fs::{self, File, Permissions},
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{FileTypeExt as _, PermissionsExt as _},
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

/// Owner and group may connect, nobody else.
const MODE: u32 = 0o770;

/// Connections that may wait to be accepted: as many as the system allows (`net.core.somaxconn`,
/// 4096 by default). With a full backlog, Go's `connect` fails at once instead of waiting.
const BACKLOG: i32 = i32::MAX;

/// A listening socket, and its file.
#[derive(Debug)]
pub struct BoundSocket {
    /// The listener, non-blocking.
    pub listener: UnixListener,
    /// Where it listens.
    pub address: SocketAddress,
    /// Its file; an abstract socket has none.
    pub file: Option<SocketFile>,
    /// Whether this process bound it, and so removes its file at the end. It did not bind a socket that
    /// systemd passed to it.
    pub ours: bool,
}

/// What to listen with: the listener that was bound first, then those that replace it.
#[derive(Debug)]
pub struct Listeners {
    pub(super) first: UnixListener,
    pub(super) anew: mpsc::Receiver<UnixListener>,
}

impl BoundSocket {
    /// Binds `address` and listens on it.
    ///
    /// A file socket is made under a temporary name, given its mode, and only then made to
    /// listen and moved to its place in one step: no moment exists at which it can be reached
    /// with another mode, and the process-wide umask is left alone. A stale socket is replaced
    /// by the same step. A lock on the directory, held only meanwhile, keeps two starting
    /// processes from replacing each other. Any process that may read the directory may hold that
    /// lock, so after a second the socket is bound without it, with a warning.
    ///
    /// # Errors
    /// [`BindError`], with the remedy.
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
                in_use(address, dial(format!("\0{name}")).ok())
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
        refuse_occupied(address, &draft)?;
        drop(fs::remove_file(&draft));
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

/// Locks `directory`. `None` where another process holds the lock for longer than [`LOCK_WAIT`].
fn lock_unless_held(address: &SocketAddress, directory: &Path) -> Result<Option<File>, BindError> {
    match lock_directory(address, directory, LOCK_WAIT) {
        Ok(lock) => Ok(Some(lock)),
        Err(error @ BindError::Locked { .. }) => {
            tracing::warn!(%error, "the socket is bound without the lock on its directory");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Nobody can connect before `listen`, so the mode is right before anybody can.
fn publish(socket: &Socket, draft: &Path, path: &Path) -> io::Result<SocketFile> {
    fs::set_permissions(draft, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    let file = SocketFile::pin(draft, path)?;
    fs::rename(draft, path)?;
    Ok(file)
}

/// A name beside `path` for the unfinished socket, of no more bytes than a socket may have.
fn draft_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let draft = path.with_file_name(name);
    if draft.as_os_str().len() <= ADDRESS_MAX {
        return draft;
    }
    path.with_file_name("~")
}

/// What stands where a socket is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survey {
    /// Nothing.
    Free,
    /// The socket of a process that has ended; it will be replaced.
    Stale,
    /// Somebody serves there.
    Served,
}

/// Looks whether `address` could be bound, and changes nothing.
///
/// # Errors
/// Why it could not, but for [`BindError::InUse`].
pub fn survey(address: &SocketAddress) -> Result<Survey, BindError> {
    let path = match address {
        SocketAddress::File(path) => path,
        SocketAddress::Abstract(name) => {
            let served = is_served(&dial(format!("\0{name}")));
            return Ok(if served { Survey::Served } else { Survey::Free });
        }
    };
    open_directory(address, path.parent().unwrap_or(Path::new("/")))?;
    match refuse_occupied(address, path) {
        Ok(()) if fs::symlink_metadata(path).is_ok() => Ok(Survey::Stale),
        Ok(()) => Ok(Survey::Free),
        Err(BindError::InUse(_) | BindError::InUseByAnother { .. }) => Ok(Survey::Served),
        Err(error) => Err(error),
    }
}

/// Connects without waiting: a process that hangs may have let its backlog fill up.
fn dial(path: impl AsRef<Path>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// Says that `address` is in use, and by which user, where the process that listens could be
/// `dialled`.
fn in_use(address: &SocketAddress, dialled: Option<Socket>) -> BindError {
    let own = rustix::process::geteuid().as_raw();
    let peer = dialled.and_then(|socket| rustix::net::sockopt::socket_peercred(socket).ok());
    match peer.map(|peer| peer.uid.as_raw()) {
        Some(uid) if uid != own && uid != 0 => {
            BindError::InUseByAnother { address: address.clone(), uid, own }
        }
        _ => BindError::InUse(address.clone()),
    }
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
            "no socket"
        };
        return Err(BindError::NotASocket { path: path.to_owned(), kind });
    }
    let dialled = dial(path);
    if is_served(&dialled) { Err(in_use(address, dialled.ok())) } else { Ok(()) }
}

/// Connected, or there but not for us: either way somebody's.
fn is_served(dialled: &io::Result<Socket>) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    !dialled.as_ref().is_err_and(|error| matches!(error.kind(), ConnectionRefused | NotFound))
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
    fn it_appears_with_its_mode_and_goes_when_removed() {
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
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
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
    fn a_survey_tells_what_stands_there_and_leaves_it() {
        let directory = tempfile::tempdir().unwrap();
        let (path, address) = at(&directory, "k.sock");
        assert_eq!(survey(&address).unwrap(), Survey::Free);
        let live = UnixListener::bind(&path).unwrap();
        assert_eq!(survey(&address).unwrap(), Survey::Served);
        drop(live);
        assert_eq!(survey(&address).unwrap(), Survey::Stale);
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(matches!(survey(&address), Err(BindError::NotASocket { .. })));
        let address = SocketAddress::Abstract(path.display().to_string());
        assert_eq!(survey(&address).unwrap(), Survey::Free);
        let _live = BoundSocket::bind(&address).unwrap();
        assert_eq!(survey(&address).unwrap(), Survey::Served);
    }

    #[test]
    fn whatever_is_no_socket_stays() {
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
    fn a_missing_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (_, address) = at(&directory, "none/k.sock");
        let error = BoundSocket::bind(&address).unwrap_err().to_string();
        assert!(error.contains("none does not exist; create it"), "{error}");
    }

    #[test]
    fn the_longest_path_binds() {
        let directory = tempfile::tempdir().unwrap();
        let fill = ADDRESS_MAX - directory.path().as_os_str().len() - 1;
        let (path, address) = at(&directory, &"x".repeat(fill));
        BoundSocket::bind(&address).unwrap();
        assert_eq!(mode(&path), 0o770);
    }
}
