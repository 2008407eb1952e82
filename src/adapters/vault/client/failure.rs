//! Why a request has no success: the keeper's own refusal, or what stands between.

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

/// The start of Go's plain-text answer to plain HTTP on a port that speaks TLS.
const PLAIN_HTTP: &[u8] = b"Client sent an HTTP request to an HTTPS server";

/// Why a request has no success.
#[derive(Debug)]
pub(in crate::adapters::vault) enum Failure {
    /// The request was not handed to a connection: no server has seen it.
    Unsent(KmsError),
    /// The request was handed to a connection, and no whole answer came.
    Lost(KmsError),
    /// The answer is not the keeper's: a proxy, a load balancer or another server gave it. It is
    /// an outage of what stands between, and no evidence about anything else.
    Intermediary {
        /// The HTTP status.
        status: u16,
        /// How long the sender asks to wait.
        retry_after: Option<Duration>,
        /// What an operator is told.
        error: KmsError,
    },
    /// The server points to another address.
    Redirected {
        /// The `Location`, as the server sent it.
        location: Option<String>,
        /// Whether the method and the body go to that address unchanged (307, 308).
        is_repeatable: bool,
        /// What an operator is told.
        error: KmsError,
    },
    /// The keeper refused.
    Refused(Refusal),
}

impl Failure {
    /// An answer of `address` that is not the keeper's.
    pub(super) fn intermediary(
        address: &VaultAddress,
        status: u16,
        content_type: Option<&str>,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Self {
        let error = if body.starts_with(PLAIN_HTTP) {
            plain_http(address)
        } else {
            let kind = content_type.map_or_else(|| "no content type".to_owned(), media_type);
            KmsError::new(
                Code::Intermediary,
                format!("the answer of {address} is not the keeper's: status {status}, {kind}"),
                "check what stands in front of the keeper (proxy, load balancer, ingress) and --vault-address",
            )
        };
        Self::Intermediary { status, retry_after, error }
    }

    /// An answer of `address` that points to `location`.
    pub(super) fn redirected(
        address: &VaultAddress,
        status: u16,
        location: Option<String>,
    ) -> Self {
        let target = location.as_deref().and_then(origin);
        let target = target.unwrap_or_else(|| "an address that it does not name".to_owned());
        let error = KmsError::new(
            Code::KeeperFailed,
            format!("{address} redirects to {target} (status {status})"),
            "if that is a node of the keeper, write its address as it stands there in --vault-address; else correct what redirects",
        );
        Self::Redirected { location, is_repeatable: matches!(status, 307 | 308), error }
    }

    /// How long the sender of the answer asks to wait.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            Self::Intermediary { retry_after, .. } => *retry_after,
            Self::Unsent(_) | Self::Lost(_) | Self::Redirected { .. } => None,
        }
    }

    /// Where a redirection points that may be followed.
    pub(super) fn location(&self) -> Option<&str> {
        match self {
            Self::Redirected { location, is_repeatable: true, .. } => location.as_deref(),
            _ => None,
        }
    }

    /// Whether the failure speaks against the endpoint itself, so that its breaker counts it. Never
    /// what the content of a request can cause.
    pub(super) fn is_endpoints_fault(&self) -> bool {
        match self {
            Self::Unsent(_) | Self::Lost(_) => true,
            // A page may be the answer to one path or one content alone.
            Self::Intermediary { status, .. } => *status >= 500,
            Self::Redirected { .. } => false,
            Self::Refused(refusal) => {
                refusal.is_about_the_node() || matches!(refusal.status, 502..=504)
            }
        }
    }

    /// Whether another server behind the same name may do better: the connections to this one are
    /// to be closed, and the name is to be resolved again.
    pub(super) fn wants_another_server(&self) -> bool {
        match self {
            Self::Unsent(_) => false,
            Self::Lost(_) | Self::Intermediary { .. } | Self::Redirected { .. } => true,
            Self::Refused(refusal) => refusal.is_about_the_node() || refusal.status >= 500,
        }
    }

    /// The error that telemetry is told of; `None` for refusals that a working keeper gives to what
    /// it is given, as for each proof of binding.
    pub(super) fn reportable_error(&self, operation: KeeperOperation) -> Option<KmsError> {
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
            | Self::Redirected { error, .. } => Some(error.clone()),
        }
    }

    /// The error of the domain, where `asked` was asked.
    pub(in crate::adapters::vault) fn into_error(self, asked: Asked<'_>) -> KmsError {
        match self {
            Self::Unsent(error)
            | Self::Lost(error)
            | Self::Intermediary { error, .. }
            | Self::Redirected { error, .. } => error,
            Self::Refused(refusal) => refusal.into_error(asked),
        }
    }
}

/// The type of a `Content-Type`, without its parameters and without what no type contains.
fn media_type(content_type: &str) -> String {
    let kind = content_type.split(';').next().unwrap_or_default();
    kind.chars().filter(|c| c.is_ascii_alphanumeric() || "/+.-".contains(*c)).take(40).collect()
}

/// Scheme, host and port of `location`; the rest may hold what was sent.
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
    fn plain_http_to_a_tls_port_is_a_wrong_address() {
        let body = b"Client sent an HTTP request to an HTTPS server.\n";
        let failure = Failure::intermediary(&address(), 400, Some("text/plain"), None, body);
        let error = failure.into_error(Asked::Login("approle"));
        assert_eq!(error.code(), Code::KeeperUnreachable);
        assert!(error.remedy().contains("https://"), "{error}");
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
