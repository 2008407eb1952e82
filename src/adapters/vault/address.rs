//! The address of a Vault server.

use std::fmt;

use http::uri::{Authority, Scheme, Uri};

use super::key_path::MountPath;

/// The base address of a server: scheme, host, port, and the URL path prefix under which a proxy
/// serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultAddress {
    scheme: Scheme,
    authority: Authority,
    /// Empty, or one or more segments with a slash before each.
    path: String,
}

impl VaultAddress {
    /// Parses `https://host[:port][/path]`, or the same with `http`. A final slash is allowed.
    ///
    /// # Errors
    /// Returns what is wrong with the text and what to write instead. The error never repeats
    /// credentials that the text contains.
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
            return Err(format!("remove /v1 from it: each request adds /v1; {FORM}"));
        }
        Ok(Self { scheme, authority: authority.clone(), path })
    }

    /// Returns whether the scheme is `https`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Returns the TCP port of the server.
    #[must_use]
    pub fn port(&self) -> u16 {
        port(&self.scheme, &self.authority).unwrap_or_default()
    }

    /// Returns the host name, or the IP address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns whether `location`, the target of a redirect, is on this server: it has the same
    /// scheme, host and port, and no user information.
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

    /// Returns the URI of `path` below `/v1/`. The caller has validated `path` with
    /// [`super::key_path`].
    pub(super) fn join(&self, path: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}/v1/{path}", self.path))
            .build()
    }
}

/// Returns the port in `authority`, or the default port of `scheme` if no port is given. Returns
/// `None` if the text after the host is not a valid port.
fn port(scheme: &Scheme, authority: &Authority) -> Option<u16> {
    match authority.as_str().strip_prefix(authority.host())? {
        "" => Some(if *scheme == Scheme::HTTPS { 443 } else { 80 }),
        // `Authority::port` of the library accepts any text before the last colon.
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
    fn keeps_the_path_prefix_of_a_proxy() {
        let address = VaultAddress::parse("https://proxy/vault/prod/").unwrap();
        let uri = address.join("sys/health").unwrap();
        assert_eq!(uri.to_string(), "https://proxy/vault/prod/v1/sys/health");
        assert!(VaultAddress::parse("https://proxy/a%2fb").is_err());
        assert!(VaultAddress::parse("https://proxy/vault/v1").unwrap_err().contains("remove /v1"));
    }

    #[test]
    fn accepts_base_addresses_and_nothing_else() {
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
    fn returns_the_host_without_brackets() {
        for (text, host) in [("https://vault", "vault"), ("https://[::1]:1", "::1")] {
            assert_eq!(VaultAddress::parse(text).unwrap().host(), host);
        }
    }

    #[test]
    fn a_redirect_matches_only_the_same_scheme_host_and_port() {
        let address = VaultAddress::parse("https://vault.example.org").unwrap();
        for (location, ours) in [
            ("https://vault.example.org/v1/x", true),
            ("https://Vault.example.org:443/v1/x", true),
            ("http://vault.example.org:443/v1/x", false),
            ("https://vault.example.org:8200/v1/x", false),
            ("https://vault.example.org.evil/v1/x", false),
            ("https://vault.example.org@evil/v1/x", false),
            // The fuzz target `names` found these: the library ignores the parts that it cannot
            // parse.
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
