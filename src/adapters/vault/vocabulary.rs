//! The words that only this keeper has: codes of its errors, reasons to send a request again, and what
//! of it expires. They are stable, because operators alert on them.

use crate::{
    domain::error::Code,
    ports::{keeper::Labels, telemetry::Expiring},
};

/// An endpoint is of another cluster than the others.
pub const CLUSTER_FOREIGN: Code = Code::OfKeeper("cluster-foreign");

/// `--require-enterprise` is set and the server is not Vault Enterprise.
pub const ENTERPRISE_REQUIRED: Code = Code::OfKeeper("enterprise-required");

/// The token that wraps the secret ID was used already, or has expired.
pub const WRAPPING_TOKEN_USED: Code = Code::OfKeeper("wrapping-token-used");

/// The bundle of authorities that the server's certificate is checked with: its first certificate to
/// expire.
pub(super) const AUTHORITIES: Expiring = Expiring::new(
    "authorities",
    "a certificate in --tls-ca-file",
    "put its successor into the file, and take out what is no longer needed",
);

/// The secret ID.
pub(super) const SECRET_ID: Expiring = Expiring::new(
    "secret-id",
    "the secret ID of the AppRole",
    "write a new one to the file of --approle-secret-id-path",
);

/// The certificate that the server showed.
pub(super) const SERVER_CERTIFICATE: Expiring = Expiring::new(
    "server-certificate",
    "the certificate of the keeper's server",
    "renew the server's certificate",
);

/// Returns what the metrics of this keeper can be labelled with.
#[must_use]
pub const fn labels() -> Labels {
    Labels {
        codes: &[CLUSTER_FOREIGN, ENTERPRISE_REQUIRED, WRAPPING_TOKEN_USED],
        retry_reasons: RetryReason::TEXTS,
    }
}

/// Makes [`RetryReason`] from one list of its values and their texts.
macro_rules! retry_reasons {
    ($($(#[$doc:meta])+ $value:ident = $text:literal,)+) => {
        /// Why a request to the keeper is sent again.
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
    /// A failure of the keeper's own (500).
    Internal = "internal",
    /// No whole answer came.
    Lost = "lost",
    /// This node of the cluster has not reached a state that another one told of.
    NotCaughtUp = "not-caught-up",
    /// This node of the cluster does not know a key version yet.
    NotYet = "not-yet",
    /// A quota.
    Quota = "quota",
    /// The node names another one.
    Redirected = "redirected",
    /// The node does not know the token, as one that is behind does not know a new one.
    TokenUnknown = "token-unknown",
    /// The node does not serve.
    Unavailable = "unavailable",
    /// There was no connection.
    Unsent = "unsent",
}
