//! Parses the settings of the connection to a SPIFFE agent.

use std::path::PathBuf;

/// The longest address of a Unix socket, in bytes: `sun_path` without its final NUL.
const ADDRESS_MAX: usize = 107;

/// The longest SPIFFE ID, in bytes (SPIFFE-ID standard, section 2.3).
const ID_MAX: usize = 2_048;

/// Parses the address of a socket: `unix:///path`, `unix:/path` or an absolute path.
///
/// # Errors
/// Returns what is wrong with the text and what to write instead.
pub fn socket(text: &str) -> Result<PathBuf, String> {
    let path = match text.split_once(':') {
        Some(("unix", path)) => path.strip_prefix("//").unwrap_or(path),
        Some((scheme, _)) if !scheme.contains('/') => {
            return Err(format!("{text:?} is not a Unix socket; write unix:///path"));
        }
        _ => text,
    };
    if !path.starts_with('/') || path.contains('\0') {
        return Err(format!("{text:?} is not an absolute path; write unix:///path"));
    }
    if path.len() > ADDRESS_MAX {
        let length = path.len();
        return Err(format!(
            "the path has {length} bytes and a Unix socket allows {ADDRESS_MAX}; use a shorter path"
        ));
    }
    Ok(PathBuf::from(path))
}

/// Parses a SPIFFE ID. Checks its form only: scheme, trust domain and characters.
///
/// # Errors
/// Returns what is wrong with the text and what to write instead.
pub fn id(text: &str) -> Result<String, String> {
    let domain = text.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
    let is_valid = domain.is_some_and(|domain| !domain.is_empty())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && text.len() <= ID_MAX;
    if is_valid {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a SPIFFE ID; write for example spiffe://example.org/kms"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_a_socket_as_a_path_and_as_a_url() {
        for text in ["/run/a.sock", "unix:///run/a.sock", "unix:/run/a.sock"] {
            assert_eq!(socket(text), Ok(PathBuf::from("/run/a.sock")), "{text}");
        }
    }

    #[test]
    fn rejects_what_is_not_a_socket_with_a_remedy() {
        let long = format!("/{}", "a".repeat(107));
        for text in ["", "a.sock", "unix://a.sock", "tcp://127.0.0.1:1", "http://h/", "/a\0", &long]
        {
            assert!(socket(text).is_err_and(|problem| problem.contains("; ")), "{text}");
        }
    }

    #[test]
    fn accepts_only_spiffe_ids() {
        assert!(id("spiffe://example.org/a/b").is_ok());
        for text in ["", "spiffe://", "spiffe:///a", "https://example.org/a", "spiffe://a/b c"] {
            assert!(id(text).is_err(), "{text}");
        }
    }
}
