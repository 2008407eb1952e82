//! TLS to Vault: which provider, which roots, which name. The one place that selects them.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use rustls_platform_verifier::BuilderVerifierExt as _;

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
    /// The client configuration for these settings: TLS 1.2 and 1.3, aws-lc-rs.
    ///
    /// # Errors
    /// Why there is nobody to believe: no certificate in the bundle, or none on the system.
    pub fn client_config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let config = match &self.trust {
            Trust::System => builder
                .with_platform_verifier()
                .map_err(|error| {
                    format!("no system certificate authorities ({error}); give --tls-ca-file")
                })?
                .with_no_client_auth(),
            Trust::Bundle(pem) => builder.with_root_certificates(roots(pem)?).with_no_client_auth(),
            Trust::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
                .with_no_client_auth(),
        };
        Ok(config)
    }
}

impl TlsSettings {
    /// A configuration for `http://` addresses, which believes nobody.
    pub(super) fn unused() -> Result<ClientConfig, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
    }
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
