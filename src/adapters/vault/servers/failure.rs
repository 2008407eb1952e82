//! The reasons why a request failed: a refusal by the keeper, or a failure between this process and
//! the keeper.

use std::time::Duration;

use http::Uri;

use crate::{
    adapters::vault::{
        address::VaultAddress,
        refusal::{Asked, Refusal, plain_http},
    },
    domain::error::{Code, KmsError},
    ports::telemetry::KeeperOperation,
};

/// What Go, nginx and Apache answer to plain HTTP on a port that speaks TLS.
const PLAIN_HTTP: [&[u8]; 3] = [
    b"Client sent an HTTP request to an HTTPS server",
    b"The plain HTTP request was sent to HTTPS port",
    b"speaking plain HTTP to an SSL-enabled server port",
];

/// Why a request failed.
#[derive(Debug)]
pub(in crate::adapters::vault) enum Failure {
    /// The request was not sent on any connection, so no server received it.
    Unsent(KmsError),
    /// The request was sent on a connection, and no complete answer arrived.
    Lost(KmsError),
    /// A proxy, a load balancer or another server gave the answer, and not the keeper. It counts as
    /// an outage and as nothing else: it proves nothing about the key, the token or the data.
    Intermediary {
        /// The HTTP status.
        status: u16,
        /// How long the sender asks to wait.
        retry_after: Option<Duration>,
        /// The error for the operator.
        error: KmsError,
    },
    /// The server redirects to another address.
    Redirected {
        /// The `Location`, as the server sent it.
        location: Option<String>,
        /// Whether the redirect keeps the method and the body (307, 308).
        is_repeatable: bool,
        /// The error for the operator.
        error: KmsError,
    },
    /// The keeper refused the request.
    Refused(Refusal),
    /// A server whose cluster is another one, or is not known to be ours, refused a login. The
    /// refusal does not count against the credential.
    Disregarded(KmsError),
}

impl Failure {
    /// Returns the failure for an answer of `address` that the keeper did not give.
    pub(in crate::adapters::vault) fn intermediary(
        address: &VaultAddress,
        status: u16,
        content_type: Option<&str>,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Self {
        let says = |text: &[u8]| body.windows(text.len()).any(|part| part == text);
        let error = if status == 400 && PLAIN_HTTP.into_iter().any(says) {
            plain_http(address)
        } else {
            let kind = content_type.map_or_else(|| "no content type".to_owned(), media_type);
            KmsError::new(
                Code::Intermediary,
                format!("the answer of {address} is not the keeper's: status {status}, {kind}"),
                "check --vault-address, and the proxy, load balancer or ingress in front of the keeper",
            )
        };
        Self::Intermediary { status, retry_after, error }
    }

    /// Returns the failure for a redirect of `address` to `location`.
    pub(in crate::adapters::vault) fn redirected(
        address: &VaultAddress,
        status: u16,
        location: Option<String>,
    ) -> Self {
        let target = location.as_deref().and_then(origin);
        let target = target.unwrap_or_else(|| "an unnamed address".to_owned());
        let error = KmsError::new(
            Code::KeeperFailed,
            format!("{address} redirects to {target} (status {status})"),
            "if the target is a node of the keeper, write its address in --vault-address exactly like that; otherwise correct the server that redirects",
        );
        Self::Redirected { location, is_repeatable: matches!(status, 307 | 308), error }
    }

    /// Returns how long the sender of the answer asks to wait.
    pub(in crate::adapters::vault) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            Self::Intermediary { retry_after, .. } => *retry_after,
            Self::Unsent(_) | Self::Lost(_) | Self::Redirected { .. } | Self::Disregarded(_) => {
                None
            }
        }
    }

    /// Returns the target of a redirect that may be followed.
    pub(in crate::adapters::vault) fn location(&self) -> Option<&str> {
        match self {
            Self::Redirected { location, is_repeatable: true, .. } => location.as_deref(),
            _ => None,
        }
    }

    /// Returns whether the failure says nothing about the endpoint: the caller had little time left,
    /// or the refusal does not count.
    pub(in crate::adapters::vault) fn says_nothing(&self) -> bool {
        match self {
            Self::Unsent(error) | Self::Lost(error) => error.code() == Code::DeadlineExceeded,
            Self::Disregarded(_) => true,
            Self::Intermediary { .. } | Self::Redirected { .. } | Self::Refused(_) => false,
        }
    }

    /// Returns whether the endpoint itself is at fault, so that its breaker counts the failure. A
    /// failure that the content of a request can cause is never counted.
    pub(in crate::adapters::vault) fn is_endpoints_fault(&self) -> bool {
        match self {
            Self::Unsent(_) | Self::Lost(_) => true,
            // An intermediary may give other pages only for one path or one content.
            Self::Intermediary { status, .. } => *status >= 500,
            Self::Redirected { .. } | Self::Disregarded(_) => false,
            Self::Refused(refusal) => {
                refusal.is_about_the_node() || matches!(refusal.status, 502..=504)
            }
        }
    }

    /// Returns whether an intermediary gave an answer that it may not give to other requests: a page
    /// below 500, any page to a login or a renewal, or a redirection that no keeper sends.
    pub(in crate::adapters::vault) fn is_of_an_intermediary(
        &self,
        operation: KeeperOperation,
    ) -> bool {
        match self {
            Self::Intermediary { .. } => {
                matches!(operation, KeeperOperation::Login | KeeperOperation::Renew)
                    || !self.is_endpoints_fault()
            }
            Self::Redirected { is_repeatable, .. } => !is_repeatable,
            Self::Unsent(_) | Self::Lost(_) | Self::Disregarded(_) | Self::Refused(_) => false,
        }
    }

    /// Returns whether another server behind the same name may succeed. The connections
    /// to this server are then closed, and the name is resolved again.
    pub(super) fn wants_another_server(&self) -> bool {
        match self {
            Self::Unsent(_) | Self::Disregarded(_) => false,
            Self::Lost(_) => !self.says_nothing(),
            Self::Intermediary { .. } | Self::Redirected { .. } => true,
            Self::Refused(refusal) => refusal.is_about_the_node() || refusal.status >= 500,
        }
    }

    /// Returns the error for telemetry. Returns `None` for expected refusals: a working keeper
    /// refuses a write with 400, for example in each proof of binding.
    pub(in crate::adapters::vault) fn reportable_error(
        &self,
        operation: KeeperOperation,
    ) -> Option<KmsError> {
        match self {
            Self::Refused(refusal)
                if operation == KeeperOperation::Write
                    && refusal.status == 400
                    && !refusal.is_about_the_node() =>
            {
                None
            }
            Self::Refused(refusal) => Some(refusal.node_error()),
            Self::Unsent(error)
            | Self::Lost(error)
            | Self::Intermediary { error, .. }
            | Self::Redirected { error, .. }
            | Self::Disregarded(error) => Some(error.clone()),
        }
    }

    /// Returns the domain error for this failure of the request `asked`.
    pub(in crate::adapters::vault) fn into_error(self, asked: Asked<'_>) -> KmsError {
        match self {
            Self::Unsent(error)
            | Self::Lost(error)
            | Self::Intermediary { error, .. }
            | Self::Redirected { error, .. }
            | Self::Disregarded(error) => error,
            Self::Refused(refusal) => refusal.into_error(asked),
        }
    }
}

/// Returns the media type of a `Content-Type` header, without its parameters and without characters
/// that a media type cannot have.
fn media_type(content_type: &str) -> String {
    let kind = content_type.split(';').next().unwrap_or_default();
    kind.chars().filter(|c| c.is_ascii_alphanumeric() || "/+.-".contains(*c)).take(40).collect()
}

/// Returns the scheme, host and port of `location`. The rest may hold secrets of the request.
fn origin(location: &str) -> Option<String> {
    let uri: Uri = location.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let port = authority.port_u16().map_or_else(String::new, |port| format!(":{port}"));
    Some(format!("{scheme}://{}{port}", authority.host()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> VaultAddress {
        VaultAddress::parse("https://vault:8200").unwrap()
    }

    #[test]
    fn an_intermediary_is_named_with_status_and_content_type_and_never_with_its_body() {
        let body = b"<html>canary</html>";
        let kind = Some("text/html; charset=canary");
        let failure = Failure::intermediary(&address(), 403, kind, None, body);
        let error = failure.into_error(Asked::Wrap("transit/encrypt/k"));
        assert_eq!(error.code(), Code::Intermediary);
        let text = error.to_string();
        assert!(text.contains("status 403, text/html"), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }

    #[test]
    fn reports_plain_http_to_a_tls_port_as_a_wrong_address() {
        for body in [
            "Client sent an HTTP request to an HTTPS server.\n",
            "<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>",
            "<p>Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",
        ] {
            let plain = VaultAddress::parse("http://127.0.0.1:8200").unwrap();
            for (address, remedy) in [(&plain, "https://"), (&address(), "speak TLS to the server")]
            {
                let failure = Failure::intermediary(address, 400, None, None, body.as_bytes());
                let error = failure.into_error(Asked::Health);
                assert_eq!(error.code(), Code::KeeperUnreachable);
                assert!(error.remedy().contains(remedy), "{error}");
            }
        }
    }

    #[test]
    fn a_redirection_names_its_target_without_path_and_credentials() {
        let location = Some("https://user:secret@other:8201/v1/auth?x=secret".to_owned());
        let error = Failure::redirected(&address(), 302, location).into_error(Asked::Renew);
        assert!(error.to_string().contains("https://other:8201"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn the_breaker_counts_nothing_that_content_can_cause() {
        let refused = |status: u16| {
            Failure::Refused(Refusal::read(status, None, br#"{"errors":[]}"#).unwrap())
        };
        let page = |status: u16| Failure::intermediary(&address(), status, None, None, b"");
        for status in [400, 403, 404, 405, 412, 413, 429] {
            assert!(!refused(status).is_endpoints_fault(), "{status}");
            assert!(!page(status).is_endpoints_fault(), "{status}");
        }
        assert!(!refused(500).is_endpoints_fault());
        for status in [472, 473, 501, 502, 503, 504] {
            assert!(refused(status).is_endpoints_fault(), "{status}");
        }
        assert!(!page(200).is_endpoints_fault());
        for status in [500, 502, 503] {
            assert!(page(status).is_endpoints_fault(), "{status}");
        }
    }
}
