//! Requires a key exchange that a later quantum computer cannot break (`--tls-require-pq`).

use std::{error::Error as StdError, fmt, iter::successors};

use rustls::{
    AlertDescription, Error, PeerIncompatible, PeerMisbehaved,
    crypto::{CryptoProvider, aws_lc_rs},
};

use super::{servers::BoxError, unreachable::inner};

/// Returns the crypto provider of all TLS connections: aws-lc-rs. If `required`, it offers hybrid
/// groups only. A FIPS build offers only those that its module is approved for.
pub(super) fn provider(required: bool) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if required {
        let hybrid = [aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::SECP256R1MLKEM768];
        let is_fips = provider.fips();
        provider.kx_groups = hybrid.into_iter().filter(|group| group.fips() || !is_fips).collect();
    }
    provider
}

/// The error of a handshake in which the server accepted no hybrid group.
#[derive(Debug)]
pub(super) struct NoHybridGroup;

impl fmt::Display for NoHybridGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no hybrid post-quantum key exchange")
    }
}

impl StdError for NoHybridGroup {}

/// Returns [`NoHybridGroup`] if `error` says that the server found no common parameters. Otherwise
/// returns `error` unchanged. Call this only for a handshake that offered hybrid groups only.
pub(super) fn name_missing_hybrid_group(error: BoxError) -> BoxError {
    let first: &(dyn StdError + 'static) = error.as_ref();
    let mut causes = successors(Some(first), |error| inner(*error));
    let tls = causes.find_map(|error| error.downcast_ref::<Error>());
    if tls.is_some_and(finds_nothing_in_common) { Box::new(NoHybridGroup) } else { error }
}

/// Returns whether `error` says that there are no common parameters. Servers report that by an
/// alert, by choosing TLS 1.2, or by asking for another group.
fn finds_nothing_in_common(error: &Error) -> bool {
    matches!(
        error,
        Error::AlertReceived(
            AlertDescription::HandshakeFailure
                | AlertDescription::ProtocolVersion
                | AlertDescription::InsufficientSecurity
                | AlertDescription::IllegalParameter
        ) | Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::NoKxGroupsInCommon
                | PeerIncompatible::KeyShareExtensionRequired
                | PeerIncompatible::NamedGroupsExtensionRequired
        ) | Error::PeerMisbehaved(
            PeerMisbehaved::IllegalHelloRetryRequestWithUnofferedNamedGroup
                | PeerMisbehaved::WrongGroupForKeyShare
        )
    )
}

#[cfg(test)]
#[path = "post_quantum_tests.rs"]
mod tests;
