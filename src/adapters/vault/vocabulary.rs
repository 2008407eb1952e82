//! Names that only this keeper uses: error codes, reasons for a retry, and things that expire. They
//! are stable, because operators alert on them.

use crate::{
    domain::error::Code,
    ports::{keeper::Labels, telemetry::Expiring},
};

/// The endpoints belong to different clusters.
pub const CLUSTER_FOREIGN: Code = Code::OfKeeper("cluster-foreign");

/// `--require-enterprise` is set and the server is not Vault Enterprise.
pub const ENTERPRISE_REQUIRED: Code = Code::OfKeeper("enterprise-required");

/// The token that wraps the credential was used before, or has expired.
pub const WRAPPING_TOKEN_USED: Code = Code::OfKeeper("wrapping-token-used");

/// This program leaves the valid token that wraps the credential to the provider.
pub const WRAPPING_TOKEN_LEFT: Code = Code::OfKeeper("wrapping-token-left");

/// The certificate in `--tls-ca-file` that expires first.
pub(super) const AUTHORITIES: Expiring = Expiring::new(
    "authorities",
    "a certificate in --tls-ca-file",
    "add the new certificate to the file, and remove certificates that are no longer needed",
);

/// The certificate of `--tls-client-cert-file`, with the certificates above it, that expires first.
pub(super) const CLIENT_CERTIFICATE: Expiring = Expiring::new(
    "client-certificate",
    "the client certificate",
    "write a new certificate and its key to the files of --tls-client-cert-file and \
     --tls-client-key-file",
);

/// The X.509-SVID of a SPIFFE agent.
pub(super) const X509_SVID: Expiring = Expiring::short_lived(
    "x509-svid",
    "the X.509-SVID",
    "see the log of the SPIFFE agent, which sends a new one in time when it works",
);

/// The secret ID.
pub(super) const SECRET_ID: Expiring = Expiring::new(
    "secret-id",
    "the secret ID of the AppRole",
    "write a new one to the file of --approle-secret-id-path",
);

/// The JWT of the login.
pub(super) const JWT: Expiring = Expiring::short_lived(
    "jwt",
    "the JWT of the login",
    "write a new one to its file; its issuer's program does that in time when it works",
);

/// The token in the file of `--token-file`.
pub(super) const TOKEN: Expiring = Expiring::short_lived(
    "token",
    "the token in the file of --token-file",
    "start the agent that writes the file, or write a new token to it",
);

/// The certificate that the server presented.
pub(super) const SERVER_CERTIFICATE: Expiring = Expiring::new(
    "server-certificate",
    "the certificate of the keeper's server",
    "renew the server's certificate",
);

/// Returns the label values that the metrics of this keeper can have.
#[must_use]
pub const fn labels() -> Labels {
    Labels {
        codes: &[CLUSTER_FOREIGN, ENTERPRISE_REQUIRED, WRAPPING_TOKEN_LEFT, WRAPPING_TOKEN_USED],
        retry_reasons: RetryReason::TEXTS,
    }
}

/// Defines [`RetryReason`] from one list of values and their label texts.
macro_rules! retry_reasons {
    ($($(#[$doc:meta])+ $value:ident = $text:literal,)+) => {
        /// The reason for sending a request to the keeper again.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(super) enum RetryReason {
            $($(#[$doc])+ $value,)+
        }

        impl RetryReason {
            const TEXTS: &[&str] = &[$($text),+];

            /// Returns the value of the metric label `reason`.
            pub(super) const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
        }
    };
}

retry_reasons! {
    /// The keeper had an internal failure (500).
    Internal = "internal",
    /// The request was sent, and no complete answer arrived.
    Lost = "lost",
    /// The node has not reached the cluster state that an earlier answer named.
    NotCaughtUp = "not-caught-up",
    /// The node does not know the key version yet.
    NotYet = "not-yet",
    /// The request exceeds a quota.
    Quota = "quota",
    /// The node redirects to another address.
    Redirected = "redirected",
    /// The node does not know the token. A node that lags does not know a new token yet.
    TokenUnknown = "token-unknown",
    /// The node does not serve requests.
    Unavailable = "unavailable",
    /// No connection was established, so the request was not sent.
    Unsent = "unsent",
}
