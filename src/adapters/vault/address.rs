//! Where Vault listens.

use std::fmt;

use http::uri::{Authority, Scheme, Uri};

/// The base address of a server: scheme, host and port, nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultAddress {
    scheme: Scheme,
    authority: Authority,
}

impl VaultAddress {
    /// Reads `https://host[:port]` or `http://host[:port]`; a final slash is allowed.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead. Credentials in it are not repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write https://host:port";
        let uri: Uri = text.parse().map_err(|_invalid| format!("it is no URL; {FORM}"))?;
        let scheme = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS || *scheme == Scheme::HTTP => scheme.clone(),
            _ => return Err(format!("it needs the scheme https:// (or http://); {FORM}")),
        };
        let authority = uri.authority().ok_or_else(|| format!("it has no host; {FORM}"))?;
        if authority.as_str().contains('@') {
            return Err(format!("it must not contain credentials; {FORM}"));
        }
        let has_port = authority.as_str().len() > authority.host().len();
        if authority.host().is_empty() || (has_port && authority.port_u16().is_none_or(|p| p == 0))
        {
            return Err(format!("it has no host, or a port that is none; {FORM}"));
        }
        if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") || text.contains('#') {
            return Err(format!("it must not have a path, query or fragment; {FORM}"));
        }
        Ok(Self { scheme, authority: authority.clone() })
    }

    /// Whether it is spoken to through TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The host, as a name or an address without brackets.
    pub(super) fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    /// Whether `location`, the target of a redirection, is on this server.
    pub(super) fn is_origin_of(&self, location: &str) -> bool {
        let port = |scheme: &Scheme, authority: &Authority| {
            authority.port_u16().unwrap_or(if *scheme == Scheme::HTTPS { 443 } else { 80 })
        };
        location.parse::<Uri>().is_ok_and(|uri| match (uri.scheme(), uri.authority()) {
            (Some(scheme), Some(authority)) => {
                *scheme == self.scheme
                    && authority.host().eq_ignore_ascii_case(self.authority.host())
                    && !authority.as_str().contains('@')
                    && port(scheme, authority) == port(&self.scheme, &self.authority)
            }
            _ => false,
        })
    }

    /// The URI of `path`, which has been validated by [`super::key_path`].
    pub(super) fn join(&self, path: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("/v1/{path}"))
            .build()
    }
}

impl fmt::Display for VaultAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
