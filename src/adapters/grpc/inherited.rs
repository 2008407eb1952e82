//! Takes over the socket that systemd opened before it started this process (socket activation).

use std::os::{
    linux::net::SocketAddrExt as _,
    unix::net::{SocketAddr, UnixListener},
};

use listenfd::ListenFd;
use sd_notify::listen_fds_with_names;

use super::{
    address::SocketAddress, bind_error::BindError, socket::BoundSocket, socket_file::SocketFile,
};

impl BoundSocket {
    /// Takes the socket that systemd passed to this process (`LISTEN_PID`, `LISTEN_FDS`,
    /// `LISTEN_FDNAMES`). Returns `None` when systemd passed no socket. Leaves the file and its
    /// mode as systemd made them. Removes the variables, so call it while no other thread runs.
    ///
    /// # Errors
    /// Returns [`BindError::Passed`] unless systemd passed exactly one Unix stream socket that
    /// listens at `address`.
    pub fn inherited(address: &SocketAddress) -> Result<Option<Self>, BindError> {
        let passed = listen_fds_with_names().map_err(|error| {
            wrong(
                format!("LISTEN_FDS: {error}"),
                "do not set the LISTEN_ variables yourself; systemd sets them",
            )
        })?;
        let names: Vec<_> = passed.map(|(_, name)| name).collect();
        match names.len() {
            0 => return Ok(None),
            1 => (),
            count => {
                let problem = format!("systemd passed {count} sockets ({})", names.join(", "));
                return Err(wrong(problem, "leave one ListenStream= in one socket unit"));
            }
        }
        let taken = ListenFd::from_env().take_unix_listener(0);
        let taken = taken.map_err(|error| wrong(error.to_string(), ONE_STREAM))?;
        taken.map(|listener| Self::passed(listener, address)).transpose()
    }

    fn passed(listener: UnixListener, address: &SocketAddress) -> Result<Self, BindError> {
        let failed =
            |action| move |source| BindError::System { action, address: address.clone(), source };
        let listens = rustix::net::sockopt::socket_acceptconn(&listener);
        if !listens.is_ok_and(|listens| listens) {
            return Err(wrong("the socket does not listen".to_owned(), ONE_STREAM));
        }
        let local = listener.local_addr().map_err(failed("read the name of the socket"))?;
        let passed = named(&local).ok_or_else(|| {
            wrong("the socket has no address that a client can connect to".to_owned(), ONE_STREAM)
        })?;
        if passed != *address {
            return Err(wrong(
                format!("systemd passed {passed}, but --listen-address is {address}"),
                "set ListenStream= of the socket unit and VAULT_KUBE_KMS_LISTEN_ADDRESS to the same path",
            ));
        }
        let file = match &passed {
            SocketAddress::File(path) => {
                Some(SocketFile::pin(path, path).map_err(failed("find the file of the socket"))?)
            }
            SocketAddress::Abstract(_) => None,
        };
        listener.set_nonblocking(true).map_err(failed("set up the socket"))?;
        Ok(Self { listener, address: passed, file, ours: false })
    }
}

/// The remedy when systemd passed another kind of socket.
const ONE_STREAM: &str = "use one ListenStream= with a path, and Accept=no";

fn wrong(problem: String, remedy: &'static str) -> BindError {
    BindError::Passed { problem, remedy }
}

fn named(local: &SocketAddr) -> Option<SocketAddress> {
    if let Some(path) = local.as_pathname() {
        return Some(SocketAddress::File(path.to_owned()));
    }
    let name = std::str::from_utf8(local.as_abstract_name()?).ok()?;
    Some(SocketAddress::Abstract(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
        path::PathBuf,
    };

    use socket2::{Domain, SockAddr, Socket, Type};

    use super::*;

    fn at(directory: &tempfile::TempDir) -> (PathBuf, SocketAddress) {
        let path = directory.path().join("k.sock");
        (path.clone(), SocketAddress::File(path))
    }

    #[test]
    fn keeps_the_mode_of_a_passed_socket() {
        let directory = tempfile::tempdir().unwrap();
        let (path, address) = at(&directory);
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o741)).unwrap();
        let passed = BoundSocket::passed(listener, &address).unwrap();
        assert!(!passed.ours && passed.file.is_some());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o741);
    }

    #[test]
    fn takes_an_abstract_socket() {
        let name = format!("vkk-inherited-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let passed = BoundSocket::passed(listener, &SocketAddress::Abstract(name)).unwrap();
        assert!(passed.file.is_none());
    }

    #[test]
    fn rejects_a_socket_at_another_address_and_names_both() {
        let directory = tempfile::tempdir().unwrap();
        let (path, _) = at(&directory);
        let listener = UnixListener::bind(&path).unwrap();
        let other = SocketAddress::File("/run/other.sock".into());
        let error = BoundSocket::passed(listener, &other).unwrap_err().to_string();
        assert!(error.starts_with("inherited-socket: systemd passed unix:///"), "{error}");
        assert!(error.contains("--listen-address is unix:///run/other.sock; set"), "{error}");
    }

    #[test]
    fn rejects_a_socket_that_does_not_listen() {
        let directory = tempfile::tempdir().unwrap();
        let (path, address) = at(&directory);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        let error = BoundSocket::passed(socket.into(), &address).unwrap_err().to_string();
        assert!(error.starts_with("inherited-socket: the socket does not listen; use"), "{error}");
    }
}
