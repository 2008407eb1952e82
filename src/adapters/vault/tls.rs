//! TLS to Vault: which provider, which roots, which name. The one place that selects them.

use std::sync::Arc;

use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    WantsVerifier,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use rustls_platform_verifier::Verifier;

/// Whom to believe that it is Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The certificate authorities of the system.
    System,
    /// Those of a PEM bundle, and no others (`--tls-ca-file`). The bundle's text.
    Bundle(Vec<u8>),
    /// Anybody (`--tls-skip-verify`).
    Anybody,
}

/// What TLS needs.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// Whom to believe.
    pub trust: Trust,
    /// The name to send and to verify instead of the address's host (`--tls-sni`).
    pub server_name: Option<ServerName<'static>>,
}

impl TlsSettings {
    /// Whether any certificate will do.
    #[must_use]
    pub fn believes_anybody(&self) -> bool {
        self.trust == Trust::Anybody
    }

    /// The client configuration for these settings: TLS 1.2 and 1.3, aws-lc-rs.
    ///
    /// # Errors
    /// Why there is nobody to believe: no certificate in the bundle, or none on the system.
    pub fn client_config(&self) -> Result<ClientConfig, String> {
        Ok(builder()?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier()?)
            .with_no_client_auth())
    }

    /// Who judges a server's certificate.
    ///
    /// # Errors
    /// As for [`TlsSettings::client_config`].
    pub(super) fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        Ok(match &self.trust {
            Trust::System => Arc::new(Verifier::new(provider).map_err(|error| {
                format!("no system certificate authorities ({error}); give --tls-ca-file")
            })?),
            Trust::Bundle(pem) => {
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots(pem)?), provider)
                    .build()
                    .map_err(|error| format!("it cannot be used: {error}"))?
            }
            Trust::Anybody => Arc::new(Anybody(provider)),
        })
    }

    /// A configuration for `http://` addresses, which believes nobody.
    pub(super) fn unused() -> Result<ClientConfig, String> {
        Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
    }
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("it is no PEM bundle: {error}"))?;
        store.add(certificate).map_err(|error| format!("a certificate in it is bad: {error}"))?;
    }
    if store.is_empty() {
        return Err("there is no certificate in it; give a PEM bundle of CA certificates".into());
    }
    Ok(store)
}

/// Takes any certificate, but still checks that the peer holds its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        for pem in ["", "hello", "-----BEGIN CERTIFICATE-----\nnope\n-----END CERTIFICATE-----\n"] {
            let trust = Trust::Bundle(pem.into());
            assert!(TlsSettings { trust, server_name: None }.client_config().is_err(), "{pem:?}");
        }
    }
}
