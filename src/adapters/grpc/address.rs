//! Where the API server dials: a file socket or an abstract one.

use std::{fmt, path::PathBuf};

/// Longest address of a Unix socket, in bytes (`sun_path` less its final NUL).
pub const ADDRESS_MAX: usize = 107;

/// The address of the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketAddress {
    /// A socket in the file system, guarded by its mode.
    File(PathBuf),
    /// A name in the network namespace, guarded by the peer's uid. Without the leading NUL.
    Abstract(String),
}

impl SocketAddress {
    /// Reads `unix:///path`, `unix:///@name`, or a bare absolute path.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = match text.split_once("://") {
            Some((scheme, path)) if scheme.eq_ignore_ascii_case("unix") => path,
            Some(_) => return Err("only unix:// sockets are served; write unix:///path".into()),
            None => text,
        };
        if !path.starts_with('/') {
            return Err(format!("{text:?} is not absolute; write unix:///path with three slashes"));
        }
        if path.contains(['\0', '%', '?', '#']) || path.contains(char::is_control) {
            return Err("a socket path without %, ?, # and control characters is needed, since \
                        kube-apiserver reads the same text as a URL"
                .into());
        }
        let abstract_name = path.strip_prefix("/@");
        let length = abstract_name.map_or(path.len(), |name| name.len().saturating_add(1));
        if length > ADDRESS_MAX {
            return Err(format!(
                "the path has {length} bytes and a Unix socket takes {ADDRESS_MAX}; use a shorter one"
            ));
        }
        match abstract_name {
            Some("") => Err("an abstract socket needs a name: unix:///@name".into()),
            Some(name) => Ok(Self::Abstract(name.to_owned())),
            None if path.ends_with('/') => {
                Err("the path names a directory; add a file name".into())
            }
            None => Ok(Self::File(PathBuf::from(path))),
        }
    }
}

impl fmt::Display for SocketAddress {
    /// The form for the `endpoint` of an `EncryptionConfiguration`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "unix://{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:///@{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_form_comes_back_as_an_endpoint() {
        for (text, endpoint) in [
            ("unix:///run/k.sock", "unix:///run/k.sock"),
            ("/run/k.sock", "unix:///run/k.sock"),
            ("UNIX:///run/k.sock", "unix:///run/k.sock"),
            ("unix:///@kms", "unix:///@kms"),
        ] {
            assert_eq!(SocketAddress::parse(text).unwrap().to_string(), endpoint);
        }
    }

    #[test]
    fn what_the_api_server_would_read_otherwise_is_refused() {
        for text in [
            "unix://run/k.sock",
            "k.sock",
            "tcp://1.2.3.4:5",
            "unix:///",
            "unix:///@",
            "/run/k%20s",
            "/run/k?x",
            "/run/\nk",
            "",
        ] {
            assert!(SocketAddress::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_kernels_limit_holds_to_the_byte() {
        let fits = format!("/{}", "x".repeat(ADDRESS_MAX - 1));
        assert!(SocketAddress::parse(&fits).is_ok());
        assert!(SocketAddress::parse(&format!("{fits}x")).unwrap_err().contains("107"));
    }
}
