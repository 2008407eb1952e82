//! Verifies servers by the certificate authorities of the system.

use std::sync::{Arc, OnceLock};

use rustls::{client::danger::ServerCertVerifier, crypto::CryptoProvider};

static LOADED: OnceLock<Arc<dyn ServerCertVerifier>> = OnceLock::new();

/// Returns a verifier by the authorities of the system. The first call that finds any reads them, and
/// they stay for the life of the process: the sandbox does not let it read them after the start.
///
/// # Errors
/// When the system has no authorities.
pub(super) fn verifier(
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    if let Some(loaded) = LOADED.get() {
        return Ok(Arc::clone(loaded));
    }
    let found = rustls_platform_verifier::Verifier::new(Arc::clone(provider));
    let found = found.map_err(|_error| {
        "no system certificate authorities were found; give --tls-ca-file".to_owned()
    })?;
    Ok(Arc::clone(LOADED.get_or_init(|| Arc::new(found))))
}
