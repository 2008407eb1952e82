//! The address that the API server connects to: a file socket or an abstract socket.

use std::{fmt, path::PathBuf};

/// Longest address of a Unix socket, in bytes: `sun_path` without its final NUL.
pub const ADDRESS_MAX: usize = 107;

/// The address of the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketAddress {
    /// A socket in the file system. The mode of the file says who may connect.
    File(PathBuf),
    /// A name in the network namespace, without the leading NUL. The uid of the peer says who may
    /// connect.
    Abstract(String),
}

impl SocketAddress {
    /// Reads `unix:///path`, `unix:///@name`, or a bare absolute path.
    ///
    /// # Errors
    /// Returns what is wrong with the text and what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = match text.split_once("://") {
            Some((scheme, path)) if scheme.eq_ignore_ascii_case("unix") => path,
            Some(_) => return Err("only unix:// sockets are supported; write unix:///path".into()),
            None => text,
        };
        if !path.starts_with('/') {
            return Err(format!("{text:?} is not absolute; write unix:///path with three slashes"));
        }
        if path.contains(['\0', '%', '?', '#']) || path.contains(char::is_control) {
            return Err(
                "the path contains %, ?, # or a control character; leave these out, because \
                        kube-apiserver reads the same text as a URL"
                    .into(),
            );
        }
        let abstract_name = path.strip_prefix("/@");
        let length = abstract_name.map_or(path.len(), |name| name.len().saturating_add(1));
        if length > ADDRESS_MAX {
            return Err(format!(
                "the path has {length} bytes and a Unix socket allows {ADDRESS_MAX}; use a shorter path"
            ));
        }
        match abstract_name {
            Some("") => Err("an abstract socket needs a name; write unix:///@name".into()),
            Some(name) => Ok(Self::Abstract(name.to_owned())),
            None if path.ends_with('/') => {
                Err("the path names a directory; add a file name".into())
            }
            None => Ok(Self::File(PathBuf::from(path))),
        }
    }
}

impl fmt::Display for SocketAddress {
    /// Writes the form for `endpoint` of an `EncryptionConfiguration`.
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
    fn prints_each_accepted_form_as_an_endpoint() {
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
    fn rejects_what_the_api_server_would_read_differently() {
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
    fn rejects_one_byte_more_than_the_kernel_allows() {
        let fits = format!("/{}", "x".repeat(ADDRESS_MAX - 1));
        assert!(SocketAddress::parse(&fits).is_ok());
        assert!(SocketAddress::parse(&format!("{fits}x")).unwrap_err().contains("107"));
    }
}
