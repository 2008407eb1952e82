//! Selects the TLS parameters for Vault: the crypto provider, the trusted roots and the server
//! name. No other module selects them.

use std::sync::Arc;

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier,
    client::WebPkiServerVerifier,
    version::{TLS12, TLS13},
};
use rustls_pki_types::ServerName;

use super::{
    bundle,
    client_pair::{ClientPair, Presented},
    post_quantum, system_authorities,
    verifier::{Accepts, Rejection, Verifier},
};

/// How a server's certificate is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// By the certificate authorities of the system.
    System,
    /// By the authorities in this PEM bundle, and no others (`--tls-ca-file`).
    Bundle(Vec<u8>),
    /// No server is trusted yet, because the bundle of `--tls-ca-file` cannot be read or used. The
    /// text names the flag, the file and the reason.
    BundleUnavailable(String),
    /// Not at all: any server is accepted, which is insecure (`--tls-skip-verify`).
    InsecureSkipVerify,
}

/// The certificate that this client presents to servers that ask for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// No certificate.
    #[default]
    None,
    /// This certificate.
    Pair(ClientPair),
    /// A certificate that is not known yet. No server is trusted until it is, because a connection
    /// without it would be useless.
    Unavailable {
        /// Why the certificate is not known. Names the source.
        why: String,
        /// How to make it known.
        remedy: &'static str,
    },
}

impl Identity {
    /// The remedy for files that cannot be read or used.
    pub const WRITE_THE_FILES: &str = "write the client certificate and its key to regular files \
                                       there; they are read as soon as they exist";

    /// Returns the SHA-256 of the chain. `None` if there is no certificate.
    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        match self {
            Self::Pair(pair) => Some(pair.digest()),
            Self::None | Self::Unavailable { .. } => None,
        }
    }

    /// Returns what an error of a connection may name of the certificate.
    pub(super) fn presented(&self) -> Option<Presented> {
        match self {
            Self::Pair(pair) => Some(pair.presented()),
            Self::None | Self::Unavailable { .. } => None,
        }
    }
}

/// The TLS settings of a client.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// How a server's certificate is verified.
    pub trust: Trust,
    /// The client certificate (`--tls-client-cert-file`).
    pub identity: Identity,
    /// The name to send and to verify instead of the address's host (`--tls-sni`).
    pub server_name: Option<ServerName<'static>>,
    /// Requires a hybrid post-quantum key exchange, and therefore TLS 1.3 (`--tls-require-pq`).
    pub require_pq: bool,
}

impl TlsSettings {
    /// Returns whether certificates are not verified, which is insecure.
    #[must_use]
    pub fn skips_verification(&self) -> bool {
        self.trust == Trust::InsecureSkipVerify
    }

    /// Returns the client configuration for these settings: TLS 1.2 and 1.3, or only TLS 1.3 if a
    /// hybrid key exchange is required, with aws-lc-rs.
    ///
    /// # Errors
    /// Returns why no authority can be used: the bundle or the system has no certificate.
    pub fn client_config(&self) -> Result<ClientConfig, String> {
        let builder = builder(self.require_pq)?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier()?);
        Ok(match &self.identity {
            Identity::Pair(pair) => builder.with_client_cert_resolver(pair.resolver()),
            Identity::None | Identity::Unavailable { .. } => builder.with_no_client_auth(),
        })
    }

    /// Returns the verifier of server certificates.
    ///
    /// # Errors
    /// Same as [`TlsSettings::client_config`].
    pub(super) fn verifier(&self) -> Result<Arc<Verifier>, String> {
        let provider = Arc::new(post_quantum::provider(self.require_pq));
        let trusted = match &self.trust {
            Trust::System => {
                Accepts::By(system_authorities::verifier(&provider)?, "the system's authorities")
            }
            Trust::Bundle(pem) => {
                let roots = Arc::new(bundle::read(pem)?.roots);
                let webpki =
                    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                        .build()
                        .map_err(|error| format!("cannot be used: {error}"))?;
                Accepts::By(webpki, "the authorities in --tls-ca-file")
            }
            Trust::BundleUnavailable(why) => Accepts::None(Rejection::NoAuthorities(why.clone())),
            Trust::InsecureSkipVerify => Accepts::All,
        };
        let accepts = match &self.identity {
            Identity::Unavailable { why, remedy } => {
                Accepts::None(Rejection::NoClientCertificate { why: why.clone(), remedy })
            }
            Identity::None | Identity::Pair(_) => trusted,
        };
        Ok(Arc::new(Verifier { accepts, provider }))
    }

    /// Returns a configuration for `http://` addresses. It trusts no server.
    pub(super) fn unused() -> Result<ClientConfig, String> {
        Ok(builder(false)?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
    }
}

/// Returns whether every TLS connection, with and without `--tls-require-pq`, uses a module in FIPS
/// mode and only approved algorithms. Returns `false` in every build without the feature `fips`.
#[must_use]
pub fn is_fips() -> bool {
    [false, true].into_iter().all(|require_pq| {
        let config = builder(require_pq)
            .map(|builder| builder.with_root_certificates(RootCertStore::empty()));
        let has_groups = !post_quantum::provider(require_pq).kx_groups.is_empty();
        has_groups && config.is_ok_and(|config| config.with_no_client_auth().fips())
    })
}

fn builder(require_pq: bool) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    // Hybrid groups exist only in TLS 1.3.
    let versions: &[_] = if require_pq { &[&TLS13] } else { &[&TLS13, &TLS12] };
    ClientConfig::builder_with_provider(Arc::new(post_quantum::provider(require_pq)))
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        for pem in ["", "hello", "-----BEGIN CERTIFICATE-----\nnope\n-----END CERTIFICATE-----\n"] {
            let trust = Trust::Bundle(pem.into());
            assert!(
                TlsSettings {
                    trust,
                    identity: Identity::None,
                    server_name: None,
                    require_pq: false
                }
                .client_config()
                .is_err(),
                "{pem:?}"
            );
        }
    }
}
