//! The client certificate of connections to the keeper: its chain and its private key.
//!
//! A pair comes from files (`files`), or from another source that calls [`ClientPair::new`]. The
//! connections present the pair that `Servers::present` was given last.

mod files;
mod key;
mod presented;

use std::{fmt, sync::Arc};

use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};

pub use self::files::{PairFailure, PairFile, PairFiles, PairParts, PairPaths, Problem};
pub(super) use self::presented::{Presented, note, note_io, noted_on};
use super::{
    bundle::{certificate, earlier, end},
    pem::{self, Section},
};
use crate::{
    domain::time::UnixTime,
    ports::finding::{Area, Finding},
};

/// The largest file of a certificate chain or a key, in bytes.
pub const PAIR_MAX: u64 = 65_536;

/// The name of a pair from files in messages.
const FROM_FILES: &str = "the client certificate in --tls-client-cert-file";

/// A client certificate with the certificates above it, and its private key.
///
/// `Debug` does not show the key. Two pairs are equal if their certificates are equal.
#[derive(Clone)]
pub struct ClientPair {
    certified: Arc<CertifiedKey>,
    digest: [u8; 32],
    presented: Presented,
}

impl ClientPair {
    /// Makes the pair from a chain, the client's own certificate first, and the key of that
    /// certificate. Copies the key into the memory of the cryptographic library, so the caller can
    /// wipe `key`. `name` names the pair in messages, such as "the client certificate in FILE".
    ///
    /// # Errors
    /// Returns why the key cannot be used, or does not fit the first certificate. The text continues
    /// a sentence that starts with the place of the key.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
        name: &'static str,
    ) -> Result<Self, String> {
        let key = any_supported_type(key).map_err(|_unsupported| {
            "holds no private key of a supported type; use RSA of 2048 bits or more, ECDSA P-256, \
             P-384 or P-521, or Ed25519"
                .to_owned()
        })?;
        let mut hash = Sha256::new();
        for certificate in &chain {
            hash.update(certificate.len().to_be_bytes());
            hash.update(certificate);
        }
        let end = chain.iter().map(end).fold(None, earlier);
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_mismatch| {
            "holds a key that does not fit the first certificate; put the certificate of this key \
             first, or replace the certificate too"
                .to_owned()
        })?;
        Ok(Self {
            certified: Arc::new(certified),
            digest: hash.finalize().into(),
            presented: Presented { name, end },
        })
    }

    /// Parses the pair in the content of its files. Accepts the encodings and layouts that
    /// [`bundle::read`] accepts.
    ///
    /// May take seconds if the key is encrypted, because deriving a key from a password is slow on
    /// purpose.
    ///
    /// # Errors
    /// Returns every problem with the files: no certificate or no key that can be used, a password
    /// that is missing or wrong, or a key of another certificate.
    ///
    /// [`bundle::read`]: super::bundle::read
    pub fn read(files: &PairParts<&[u8]>) -> Result<Self, Vec<Problem>> {
        let chain = chain(files.certificate).map_err(|text| (PairFile::Certificate, text));
        let key = key::read(files);
        match (chain, key) {
            (Ok(chain), Ok(key)) => {
                Self::new(chain, &key.der(), FROM_FILES).map_err(|text| vec![(PairFile::Key, text)])
            }
            (chain, key) => Err([chain.err(), key.err()].into_iter().flatten().collect()),
        }
    }

    /// Returns the SHA-256 of the chain. It is not secret. It identifies the pair, for example to a
    /// login that must be repeated with a new certificate.
    #[must_use]
    pub const fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Returns when the first certificate of the chain expires. `None` if that is not known.
    #[must_use]
    pub const fn end(&self) -> Option<UnixTime> {
        self.presented.end
    }

    /// Returns what an error of a connection with this pair may name.
    pub(super) const fn presented(&self) -> Presented {
        self.presented
    }

    /// Returns the resolver that presents this pair to each server that asks for a certificate.
    pub(super) fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.certified)))
    }

    /// Returns the finding of `check` at `now` about the time that is left. It is a warning if less
    /// than `days_min` days are left.
    pub(super) fn finding(&self, now: UnixTime, days_min: u64) -> Finding {
        let Presented { name, end } = self.presented;
        let remedy = "write a new certificate and its key to the files";
        let Some(left) = end.map(|end| end.since(now)) else {
            return Finding::pass(Area::Connection, format!("{name} is used"));
        };
        let days = left.as_secs() / 86_400;
        if left.is_zero() {
            Finding::fail(Area::Connection, format!("{name} has expired"), remedy)
        } else if days < days_min {
            Finding::warn(Area::Connection, format!("{name} expires in {days} days"), remedy)
        } else {
            Finding::pass(Area::Connection, format!("{name} is good for {days} days"))
        }
    }
}

impl fmt::Debug for ClientPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientPair").field("presented", &self.presented).finish_non_exhaustive()
    }
}

impl PartialEq for ClientPair {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for ClientPair {}

/// Parses the chain of certificates in `bytes`, the client's own certificate first.
fn chain(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    if pem::is_der(bytes) {
        return Err(
            "is a binary file; convert a certificate with openssl x509 -inform der, and a \
                    key store with openssl pkcs12"
                .to_owned(),
        );
    }
    let mut chain = Vec::new();
    for Section { label, body } in pem::sections(&pem::plain(bytes)) {
        match (label, body) {
            (b"CERTIFICATE" | b"X509 CERTIFICATE", body) => {
                let der = body.and_then(certificate);
                // The first certificate must be of version 3. Certificates above it need not.
                let is_valid = |der: &CertificateDer<'_>| {
                    webpki::EndEntityCert::try_from(der).is_ok()
                        || (!chain.is_empty() && webpki::anchor_from_trusted_cert(der).is_ok())
                };
                let Some(der) = der.filter(is_valid) else {
                    let number = chain.len() + 1;
                    return Err(format!(
                        "holds a certificate {number} that is not valid X.509 version 3; issue it \
                         again"
                    ));
                };
                chain.push(der);
            }
            (b"TRUSTED CERTIFICATE", _) => {
                return Err("holds a certificate in OpenSSL's own TRUSTED form; convert it with \
                            openssl x509"
                    .to_owned());
            }
            _ => (),
        }
    }
    if chain.is_empty() {
        return Err("holds no certificate; give the client's certificate in PEM".to_owned());
    }
    Ok(chain)
}

#[cfg(test)]
#[path = "pair_tests.rs"]
mod tests;
