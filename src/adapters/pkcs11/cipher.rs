//! Encrypts and decrypts with AES-256-GCM on the token, and encodes the ciphertexts.

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cryptoki::{
    error::{Error, RvError},
    mechanism::{Mechanism, aead::GcmParams},
    object::ObjectHandle,
    session::Session,
};

use super::{
    meaning::{self, Fault},
    pool::LiveSession,
};
use crate::domain::{
    envelope::Ciphertext,
    error::{Code, KmsError},
    key::KekVersion,
    secret::Plaintext,
};

/// Starts each ciphertext: `pkcs11:v<version>:`, then base64 of nonce, encrypted bytes and tag
/// (`docs/formats.md`).
const PREFIX: &str = "pkcs11:v";

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const TAG_BITS: u64 = 128;

/// Encodes nonce, encrypted bytes and tag in `sealed`, made with `version`.
///
/// # Errors
/// Returns `invalid-request` when the result is longer than KMS v2 allows.
pub(super) fn ciphertext(version: KekVersion, sealed: &[u8]) -> Result<Ciphertext, KmsError> {
    Ciphertext::new(format!("{PREFIX}{version}:{}", STANDARD.encode(sealed)).into_bytes())
}

/// Decodes a ciphertext into its version, and its nonce, encrypted bytes and tag.
///
/// # Errors
/// Returns `ciphertext-rejected` for another format.
pub(super) fn parse(ciphertext: &Ciphertext) -> Result<(KekVersion, Vec<u8>), KmsError> {
    let parts = || {
        let text = std::str::from_utf8(ciphertext.as_bytes()).ok()?;
        let (number, body) = text.strip_prefix(PREFIX)?.split_once(':')?;
        Some((KekVersion::parse(number)?, STANDARD.decode(body).ok()?))
    };
    parts().ok_or_else(rejected)
}

/// Encrypts `plaintext` with `key`, bound to `associated_data`. Returns nonce, encrypted bytes and tag.
/// Blocks.
///
/// # Errors
/// Returns the answer of the library.
pub(super) fn seal(
    session: &Session,
    key: ObjectHandle,
    plaintext: &[u8],
    associated_data: &[u8],
) -> Result<Vec<u8>, Fault> {
    let mut nonce = [0; NONCE_BYTES];
    fill(&mut nonce)?;
    let params = GcmParams::new(&mut nonce, associated_data, TAG_BITS.into())?;
    let body = session.encrypt(&Mechanism::AesGcm(params), key, plaintext)?;
    // Some tokens choose the nonce themselves, and overwrite the given one.
    Ok([&nonce[..], &body].concat())
}

/// Decrypts what [`seal`] gave. Blocks.
///
/// Tokens report a wrong tag in many ways. `SoftHSM` 2.6.1 answers `CKR_GENERAL_ERROR`, as a broken
/// device does. So an error that does not concern the session has this function encrypt and decrypt a
/// probe with the same key. If the probe works, the ciphertext was the cause.
///
/// # Errors
/// Returns `ciphertext-rejected` for a ciphertext of another key or other `associated_data`, or the
/// answer of the library.
pub(super) fn open(
    live: &LiveSession,
    key: ObjectHandle,
    sealed: &[u8],
    associated_data: &[u8],
) -> Result<Plaintext, Fault> {
    match decrypt(&live.session, key, sealed, associated_data)? {
        Ok(bytes) => Ok(Plaintext::new(bytes)),
        Err(error) if meaning::is_of_ciphertext(&error) => Err(rejected().into()),
        Err(error) if meaning::is_of_session(&error) || !opens_a_probe(live, key) => {
            Err(error.into())
        }
        Err(_of_the_ciphertext) => Err(rejected().into()),
    }
}

/// Returns the answer of the library to one decryption.
fn decrypt(
    session: &Session,
    key: ObjectHandle,
    sealed: &[u8],
    associated_data: &[u8],
) -> Result<Result<Vec<u8>, Error>, Fault> {
    let (nonce, body) = sealed.split_at_checked(NONCE_BYTES).ok_or_else(rejected)?;
    if body.len() <= TAG_BYTES {
        return Err(rejected().into());
    }
    let mut nonce = nonce.to_vec();
    let params = GcmParams::new(&mut nonce, associated_data, TAG_BITS.into())?;
    Ok(session.decrypt(&Mechanism::AesGcm(params), key, body))
}

/// Returns whether the token decrypts a fresh ciphertext of `key`. Uses another session if the library
/// left the failed decryption open in this one.
fn opens_a_probe(live: &LiveSession, key: ObjectHandle) -> bool {
    let opens = probe(&live.session, key);
    if matches!(opens, Err(Fault::Library(Error::Pkcs11(RvError::OperationActive, _)))) {
        return live.open_another().is_ok_and(|session| probe(&session, key).unwrap_or(false));
    }
    opens.unwrap_or(false)
}

fn probe(session: &Session, key: ObjectHandle) -> Result<bool, Fault> {
    let mut probe = [0; 32];
    fill(&mut probe)?;
    let sealed = seal(session, key, &probe, b"probe")?;
    Ok(decrypt(session, key, &sealed, b"probe")?.is_ok_and(|opened| opened == probe))
}

fn fill(bytes: &mut [u8]) -> Result<(), KmsError> {
    rand::fill(bytes).map_err(|_unspecified| {
        KmsError::new(Code::Internal, "the system gave no random bytes", "report this")
    })
}

/// Makes the error for a ciphertext that the key does not decrypt.
pub(super) fn rejected() -> KmsError {
    KmsError::new(
        Code::CiphertextRejected,
        "the token does not recognise the ciphertext under its key id and annotations",
        "the stored object was changed or is of another key; restore it from a backup",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored objects outlive releases, so the format never changes.
    #[test]
    fn keeps_the_format_of_ciphertexts() {
        let version = KekVersion::new(12).unwrap();
        let whole = ciphertext(version, b"0123456789abcdef").unwrap();
        assert_eq!(whole.as_bytes(), b"pkcs11:v12:MDEyMzQ1Njc4OWFiY2RlZg==");
        assert_eq!(parse(&whole), Ok((version, b"0123456789abcdef".to_vec())));
    }

    #[test]
    fn reads_the_canonical_spelling_alone() {
        for bad in [
            "pkcs11:v12:MDEyMzQ1Njc4OWFiY2RlZh==",
            "pkcs11:v12:MDEyMzQ1Njc4OWFiY2RlZg",
            "pkcs11:v012:MDEy",
            "pkcs11:v0:MDEy",
            "local:v1:MDEy",
            "pkcs11:v1",
        ] {
            let error = parse(&Ciphertext::new(bad.into()).unwrap()).unwrap_err();
            assert_eq!(error.code(), Code::CiphertextRejected, "{bad}");
        }
    }
}
