//! Where Vault listens.

use std::fmt;

use http::uri::{Authority, Scheme, Uri};

use super::key_path::MountPath;

/// The base address of a server: scheme, host, port, and the URL path below which a proxy serves
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultAddress {
    scheme: Scheme,
    authority: Authority,
    /// Empty, or segments that each follow a slash.
    path: String,
}

impl VaultAddress {
    /// Reads `https://host[:port][/path]` or the same with `http`; a final slash is allowed.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead. Credentials in it are not repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write https://host:port";
        let uri: Uri = text.parse().map_err(|_invalid| format!("it is not a valid URL; {FORM}"))?;
        let scheme = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS || *scheme == Scheme::HTTP => scheme.clone(),
            _ => return Err(format!("it needs the scheme https:// (or http://); {FORM}")),
        };
        let authority = uri.authority().ok_or_else(|| format!("it has no host; {FORM}"))?;
        if authority.as_str().contains('@') {
            return Err(format!("it must not contain credentials; {FORM}"));
        }
        let is_port_valid = port(&scheme, authority).is_some_and(|port| port != 0);
        if authority.host().is_empty() || !is_port_valid {
            return Err(format!("it has no host, or its port is not valid; {FORM}"));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(format!("it must not have a query or fragment; {FORM}"));
        }
        let path = uri.path().trim_end_matches('/').to_owned();
        if !path.is_empty() {
            MountPath::parse(&path).map_err(|wrong| format!("its path: {wrong}; {FORM}"))?;
        }
        if path.split('/').any(|segment| segment == "v1") {
            return Err(format!("leave /v1 out of it: each request adds it; {FORM}"));
        }
        Ok(Self { scheme, authority: authority.clone(), path })
    }

    /// Whether it is spoken to through TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The TCP port of the server.
    #[must_use]
    pub fn port(&self) -> u16 {
        port(&self.scheme, &self.authority).unwrap_or_default()
    }

    /// The host, as a name or an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    /// Whether `location`, the target of a redirection, is on this server: the same scheme, host and
    /// port, and no user.
    #[must_use]
    pub fn is_origin_of(&self, location: &str) -> bool {
        location.parse::<Uri>().is_ok_and(|uri| match (uri.scheme(), uri.authority()) {
            (Some(scheme), Some(authority)) => {
                *scheme == self.scheme
                    && authority.host().eq_ignore_ascii_case(self.authority.host())
                    && !authority.as_str().contains('@')
                    && port(scheme, authority) == Some(self.port())
            }
            _ => false,
        })
    }

    /// The URI of `path`, which has been validated by [`super::key_path`].
    pub(super) fn join(&self, path: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}/v1/{path}", self.path))
            .build()
    }
}

/// The port in `authority`, or that of `scheme` where nothing follows the host; `None` where what
/// follows is not a valid port.
fn port(scheme: &Scheme, authority: &Authority) -> Option<u16> {
    match authority.as_str().strip_prefix(authority.host())? {
        "" => Some(if *scheme == Scheme::HTTPS { 443 } else { 80 }),
        // The library's own reading takes what stands behind the last colon.
        after => {
            let digits = after.strip_prefix(':')?;
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
        }
    }
}

impl fmt::Display for VaultAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_below_the_path_of_a_proxy() {
        let address = VaultAddress::parse("https://proxy/vault/prod/").unwrap();
        let uri = address.join("sys/health").unwrap();
        assert_eq!(uri.to_string(), "https://proxy/vault/prod/v1/sys/health");
        assert!(VaultAddress::parse("https://proxy/a%2fb").is_err());
        assert!(VaultAddress::parse("https://proxy/vault/v1").unwrap_err().contains("/v1 out"));
    }

    #[test]
    fn a_base_address_is_all_that_is_taken() {
        for text in ["https://vault:8200", "http://127.0.0.1:1", "https://[::1]:8200", "https://v/"]
        {
            let address = VaultAddress::parse(text).unwrap();
            assert_eq!(address.to_string(), text.trim_end_matches('/'));
        }
        for text in [
            "vault:8200",
            "",
            "ftp://vault",
            "https://vault/v1",
            "https://vault/?x",
            "https://vault:",
            "https://vault:82000",
            "https://vault:0",
            "https://",
            "https:// vault",
        ] {
            assert!(VaultAddress::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_host_is_told_without_brackets() {
        for (text, host) in [("https://vault", "vault"), ("https://[::1]:1", "::1")] {
            assert_eq!(VaultAddress::parse(text).unwrap().host(), host);
        }
    }

    #[test]
    fn a_redirection_is_followed_to_the_same_scheme_host_and_port_only() {
        let address = VaultAddress::parse("https://vault.example.org").unwrap();
        for (location, ours) in [
            ("https://vault.example.org/v1/x", true),
            ("https://Vault.example.org:443/v1/x", true),
            ("http://vault.example.org:443/v1/x", false),
            ("https://vault.example.org:8200/v1/x", false),
            ("https://vault.example.org.evil/v1/x", false),
            ("https://vault.example.org@evil/v1/x", false),
            // Found by the fuzz target `names`: the library leaves out what it cannot read.
            ("https://vault.example.org:443~/v1/x", false),
            ("https://vault.example.org:1[::1]:443/v1/x", false),
            ("https://vault.example.org:+443/v1/x", false),
            ("/v1/x", false),
            ("", false),
        ] {
            assert_eq!(address.is_origin_of(location), ours, "{location}");
        }
    }

    #[test]
    fn credentials_are_refused_and_not_repeated() {
        let error = VaultAddress::parse("https://root:canary@vault").unwrap_err();
        assert!(error.contains("credentials") && !error.contains("canary"), "{error}");
    }
}
