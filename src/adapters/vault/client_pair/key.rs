//! Parses private keys in PEM: PKCS #8 in clear or encrypted, PKCS #1 and SEC 1. The memory of each
//! copy is wiped.

use pkcs5::{
    EncryptionScheme, Error,
    der::{self, Reader as _, SliceReader, asn1::OctetStringRef},
    pbes2::Kdf,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use zeroize::Zeroizing;

use super::{PairFile, PairParts, Problem};
use crate::adapters::vault::pem::{self, Section};

/// The most rounds of PBKDF2 that are computed. A CPU core computes about a million in a second.
const ROUNDS_MAX: u32 = 5_000_000;

/// The most memory, in bytes, that scrypt may need for one block. OpenSSL's default needs 16 MiB.
const SCRYPT_MEMORY_MAX: u64 = 32 * 1_048_576;

/// The most blocks of scrypt. OpenSSL's default is 1.
const SCRYPT_BLOCKS_MAX: u16 = 16;

/// Converts any encrypted key to a form that can be read. The command asks for the old and the new
/// password.
const CONVERT: &str = "convert it with openssl pkcs8 -topk8 -v2 aes-256-cbc";

/// The ASN.1 form of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Pkcs1,
    Pkcs8,
    Sec1,
}

/// A private key in DER.
pub(super) struct Key {
    form: Form,
    der: Zeroizing<Vec<u8>>,
}

impl Key {
    /// Returns the key without a copy.
    pub(super) fn der(&self) -> PrivateKeyDer<'_> {
        let der: &[u8] = &self.der;
        match self.form {
            Form::Pkcs1 => PrivatePkcs1KeyDer::from(der).into(),
            Form::Pkcs8 => PrivatePkcs8KeyDer::from(der).into(),
            Form::Sec1 => PrivateSec1KeyDer::from(der).into(),
        }
    }
}

/// Parses the only private key in the content of `files`. Uses the password if the key is encrypted.
///
/// # Errors
/// Returns the file with a problem, and the problem.
pub(super) fn read(files: &PairParts<&[u8]>) -> Result<Key, Problem> {
    let (bytes, has_own_file) = (files.key.unwrap_or(files.certificate), files.key.is_some());
    let wrong = |text: &str| (PairFile::Key, text.to_owned());
    if pem::is_der(bytes) {
        return Err(wrong(
            "is a binary file; convert a key with openssl pkey -inform der, and a key store with \
             openssl pkcs12",
        ));
    }
    let text = pem::plain(bytes);
    let mut keys = pem::sections(&text).filter(|section| section.label.ends_with(b"PRIVATE KEY"));
    let Some(Section { label, body }) = keys.next() else {
        return Err(wrong(if has_own_file {
            "holds no private key; give the client's key in PEM"
        } else {
            "holds no private key; append it, or give --tls-client-key-file"
        }));
    };
    if keys.next().is_some() {
        return Err(wrong("holds more than one private key; leave the key of the certificate"));
    }
    let body = body.ok_or_else(|| wrong("holds a private key without an END line"))?;
    let form = match label {
        _ if body.windows(10).any(|part| part == b"Proc-Type:") => {
            let old = "holds a key that is encrypted in the old form (Proc-Type)";
            return Err((PairFile::Key, format!("{old}; {CONVERT}")));
        }
        b"ENCRYPTED PRIVATE KEY" => None,
        b"PRIVATE KEY" => Some(Form::Pkcs8),
        b"RSA PRIVATE KEY" => Some(Form::Pkcs1),
        b"EC PRIVATE KEY" => Some(Form::Sec1),
        _ => {
            return Err(wrong(
                "holds a private key of an unknown form; give PKCS #8, PKCS #1 or SEC 1 in PEM",
            ));
        }
    };
    let der = pem::decoded(body).ok_or_else(|| wrong("holds a private key that is not base64"))?;
    match form {
        Some(form) => Ok(Key { form, der }),
        None => decrypted(&der, files.password).map(|der| Key { form: Form::Pkcs8, der }),
    }
}

/// Decrypts the `EncryptedPrivateKeyInfo` (RFC 5958, section 3) in `der`.
fn decrypted(der: &[u8], password: Option<&[u8]>) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let wrong = |text: String| (PairFile::Key, text);
    let Some(password) = password else {
        return Err(wrong(
            "holds an encrypted key; give --tls-client-key-password-file".to_owned(),
        ));
    };
    let password = match password {
        [line @ .., b'\r', b'\n'] | [line @ .., b'\n'] | line => line,
    };
    if password.is_empty() {
        return Err((PairFile::Password, "is empty; write the password of the key".to_owned()));
    }
    let unknown = || wrong(format!("holds a key with an unknown encryption; {CONVERT}"));
    let (scheme, data) = encrypted(der).map_err(|_unknown| unknown())?;
    let parameters = scheme.pbes2().ok_or_else(unknown)?;
    if !is_bounded(&parameters.kdf) {
        let text = "holds a key whose password takes too much time or memory to check";
        return Err(wrong(format!("{text}; {CONVERT}")));
    }
    match scheme.decrypt(password, data) {
        Ok(der) => Ok(Zeroizing::new(der)),
        Err(Error::DecryptFailed) => Err((
            PairFile::Password,
            "does not hold the password of the key; write the right one".to_owned(),
        )),
        Err(_) => Err(unknown()),
    }
}

fn encrypted(der: &[u8]) -> der::Result<(EncryptionScheme, &[u8])> {
    let mut reader = SliceReader::new(der)?;
    let parts = reader.sequence(|reader| {
        let scheme = reader.decode::<EncryptionScheme>()?;
        Ok::<_, der::Error>((scheme, reader.decode::<&OctetStringRef>()?.as_bytes()))
    })?;
    reader.finish()?;
    Ok(parts)
}

/// Returns whether the key can be derived in a few seconds and in little memory.
fn is_bounded(kdf: &Kdf) -> bool {
    match kdf {
        Kdf::Pbkdf2(pbkdf2) => pbkdf2.iteration_count <= ROUNDS_MAX,
        Kdf::Scrypt(scrypt) => {
            let memory = scrypt
                .cost_parameter
                .saturating_mul(128)
                .saturating_mul(u64::from(scrypt.block_size));
            memory <= SCRYPT_MEMORY_MAX && scrypt.parallelization <= SCRYPT_BLOCKS_MAX
        }
        _ => false,
    }
}
