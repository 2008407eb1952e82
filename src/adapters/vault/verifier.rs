//! Verifies the certificates of servers, and returns the reason of a rejection as a typed value.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime as TlsTime};

use super::bundle::{LAST_SECOND, from_tls};
use crate::domain::time::UnixTime;

/// Which certificates are accepted.
#[derive(Debug)]
pub(super) enum Accepts {
    /// The certificates that this verifier accepts. The text names its authorities in error
    /// messages.
    By(Arc<dyn ServerCertVerifier>, &'static str),
    /// All certificates (`--tls-skip-verify`).
    All,
    /// No certificate, for this reason.
    None(Rejection),
}

/// Why a certificate was rejected, with details that the TLS library does not give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// The authorities are not known. The text says why.
    NoAuthorities(String),
    /// The certificate of this client is not known, so no server is of use.
    NoClientCertificate {
        /// Why it is not known. Names its source.
        why: String,
        /// How to make it known.
        remedy: &'static str,
    },
    /// No known authority signed the certificate.
    UnknownIssuer {
        /// The authorities that were tried.
        by: &'static str,
        /// Whether the certificate is its own issuer.
        is_self_signed: bool,
        /// Whether the server sent no other certificate.
        is_alone: bool,
    },
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAuthorities(why) | Self::NoClientCertificate { why, .. } => f.write_str(why),
            Self::UnknownIssuer { .. } => f.write_str("unknown issuer"),
        }
    }
}

impl StdError for Rejection {}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(rejection))))
    }
}

/// The verifier of all connections.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) accepts: Accepts,
    pub(super) provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Returns when an accepted chain stops being valid. Returns `None` if the chain is never
    /// accepted, or if certificates are not verified.
    pub(super) fn end(
        &self,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> Option<UnixTime> {
        let Accepts::By(verifier, _) = &self.accepts else { return None };
        let (own, above) = chain.split_first()?;
        let mut at = TlsTime::since_unix_epoch(Duration::from_secs(LAST_SECOND));
        // Each round finds the end of at least one more certificate of the chain.
        for _ in 0..=chain.len() {
            match verifier.verify_server_cert(own, above, name, &[], at) {
                Ok(_) => return Some(from_tls(at)),
                Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                    not_after,
                    ..
                })) if not_after < at => at = not_after,
                Err(_) => return None,
            }
        }
        None
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: TlsTime,
    ) -> Result<ServerCertVerified, Error> {
        let (verifier, by) = match &self.accepts {
            Accepts::By(verifier, by) => (verifier, *by),
            Accepts::All => return Ok(ServerCertVerified::assertion()),
            Accepts::None(rejection) => return Err(rejection.clone().into()),
        };
        let judged =
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        judged.map_err(|error| match error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                let is_alone = intermediates.is_empty();
                let is_self_signed = is_self_signed(end_entity);
                Rejection::UnknownIssuer { by, is_self_signed, is_alone }.into()
            }
            // The verifier of the system's authorities has exactly one error type of its own: the
            // certificate is not for servers.
            Error::InvalidCertificate(CertificateError::Other(other))
                if !other.0.is::<webpki::Error>() =>
            {
                CertificateError::InvalidPurpose.into()
            }
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn is_self_signed(certificate: &CertificateDer<'_>) -> bool {
    webpki::EndEntityCert::try_from(certificate).is_ok_and(|own| own.issuer() == own.subject())
}
