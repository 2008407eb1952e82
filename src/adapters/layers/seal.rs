//! Adds binding and versions for keepers that have none. A fresh key for each wrap seals the seed
//! together with its associated data, and the keeper wraps only that key.
//!
//! The format is fixed (`docs/formats.md`), because what is stored in etcd outlives releases.

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    rand,
};
use zeroize::Zeroizing;

use crate::{
    domain::{
        envelope::{AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::{KekSnapshot, KekVersion},
        secret::Plaintext,
        time::Monotonic,
    },
    ports::{
        abilities::Abilities,
        kek::{Kek, Unwrap, Wrapped},
    },
};

/// The first bytes of each sealed ciphertext.
const MAGIC: &[u8; 10] = b"kms-seal/1";

/// Length of the key of one seal, in bytes.
const KEY_BYTES: usize = 32;

/// Length of the tag of AES-256-GCM, in bytes.
const TAG_BYTES: usize = 16;

/// Seals each seed with a fresh key. The keeper inside wraps that key.
#[derive(Debug)]
pub struct Seal<K: ?Sized> {
    inner: Arc<K>,
    /// The abilities of the keeper inside.
    abilities: Abilities,
}

impl<K: Kek + ?Sized> Seal<K> {
    /// Returns the layer around `inner`.
    #[must_use]
    pub fn new(inner: Arc<K>) -> Self {
        let abilities = inner.abilities();
        Self { inner, abilities }
    }

    /// Returns the associated data for the call of the keeper inside. Empty when that keeper does
    /// not bind.
    fn bound_inside(&self, associated_data: &AssociatedData) -> AssociatedData {
        if self.abilities.binds { associated_data.clone() } else { AssociatedData::none() }
    }

    /// Parses a sealed ciphertext. Rejects it when its wrapped key is of another version than its
    /// header says.
    fn read<'a>(&self, sealed: Unwrap<'a>) -> Result<Parts<'a>, KmsError> {
        let parts = Parts::read(sealed.ciphertext.as_bytes()).ok_or_else(rejected)?;
        let is_pinned = self.abilities.pins_versions;
        if is_pinned && self.inner.version_of(&parts.wrapped_key)? != parts.version {
            return Err(rejected());
        }
        Ok(parts)
    }
}

/// The parts of a sealed ciphertext.
struct Parts<'a> {
    version: KekVersion,
    /// The bytes before `body`.
    header: &'a [u8],
    wrapped_key: Ciphertext,
    /// The seed in AES-256-GCM, with its tag.
    body: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (version, rest) = rest.split_first_chunk()?;
        let version = KekVersion::new(u32::from_be_bytes(*version))?;
        let (length, rest) = rest.split_first_chunk()?;
        let (wrapped_key, body) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        let wrapped_key = Ciphertext::new(wrapped_key.to_vec()).ok()?;
        let header = bytes.get(..bytes.len().checked_sub(body.len())?)?;
        (body.len() >= TAG_BYTES).then_some(Self { version, header, wrapped_key, body })
    }

    /// Opens the seal with `key`.
    fn open(&self, key: &Plaintext, associated: &AssociatedData) -> Result<Plaintext, KmsError> {
        let (cipher, nonce) = cipher(key.expose()).ok_or_else(rejected)?;
        let mut body = Zeroizing::new(self.body.to_vec());
        let aad = Aad::from([self.header, associated.as_bytes()].concat());
        let opened = cipher.open_in_place(nonce, aad, &mut body).map_err(|_forged| rejected())?;
        Ok(Plaintext::new(opened.to_vec()).with_request_id(key.request_id().cloned()))
    }
}

/// Returns the cipher of one seal. The nonce is zero, because each key seals only once.
fn cipher(key: &[u8]) -> Option<(LessSafeKey, Nonce)> {
    let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
    Some((LessSafeKey::new(key), Nonce::assume_unique_for_key([0; 12])))
}

/// Seals `plaintext` with `key`, which the keeper wrapped to `wrapped_key`.
///
/// # Errors
/// Returns `internal` when the cipher fails, and `invalid-request` when the result is longer than
/// KMS v2 allows.
fn seal(
    version: KekVersion,
    key: &Plaintext,
    wrapped_key: &Ciphertext,
    plaintext: &Plaintext,
    associated_data: &AssociatedData,
) -> Result<Ciphertext, KmsError> {
    let wrapped_key = wrapped_key.as_bytes();
    let length = u16::try_from(wrapped_key.len()).map_err(|_long| failed())?;
    let number = version.get().to_be_bytes();
    let header = [MAGIC, &number[..], &length.to_be_bytes(), wrapped_key].concat();
    // Reserves room for the tag: growth would leave a copy of the plaintext in memory.
    let room = plaintext.len().saturating_add(TAG_BYTES);
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    body.extend_from_slice(plaintext.expose());
    let (cipher, nonce) = cipher(key.expose()).ok_or_else(failed)?;
    let aad = Aad::from([header.as_slice(), associated_data.as_bytes()].concat());
    cipher.seal_in_place_append_tag(nonce, aad, &mut *body).map_err(|_unspecified| failed())?;
    Ciphertext::new([header, body.to_vec()].concat())
}

#[async_trait]
impl<K: Kek + ?Sized> Kek for Seal<K> {
    fn abilities(&self) -> Abilities {
        let mut abilities = self.abilities;
        (abilities.pins_versions, abilities.binds) = (true, true);
        abilities
    }

    async fn describe(&self, deadline: Monotonic) -> Result<KekSnapshot, KmsError> {
        self.inner.describe(deadline).await
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        deadline: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        let mut key = Zeroizing::new(vec![0; KEY_BYTES]);
        rand::fill(&mut key).map_err(|_unspecified| failed())?;
        let key = Plaintext::new(std::mem::take(&mut *key));
        let bound = self.bound_inside(associated_data);
        let wrapped = self.inner.wrap(version, &key, &bound, deadline).await?;
        // A keeper that does not pin does not report the version. The header then names the
        // requested version.
        let version = if self.abilities.pins_versions { wrapped.version } else { version };
        let sealed = seal(version, &key, &wrapped.ciphertext, plaintext, associated_data)?;
        Ok(Wrapped::new(sealed, version).with_request_id(wrapped.request_id))
    }

    async fn unwrap<'a>(
        &self,
        sealed: Unwrap<'a>,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        let parts = self.read(sealed)?;
        let bound = self.bound_inside(sealed.associated_data);
        let inside = Unwrap { ciphertext: &parts.wrapped_key, associated_data: &bound };
        let key = self.inner.unwrap(inside, deadline).await?;
        parts.open(&key, sealed.associated_data)
    }

    async fn unwrap_many<'a>(
        &self,
        sealed: &[Unwrap<'a>],
        deadline: Monotonic,
    ) -> Vec<Result<Plaintext, KmsError>> {
        let bound: Vec<_> =
            sealed.iter().map(|item| self.bound_inside(item.associated_data)).collect();
        let parts: Vec<_> = sealed.iter().map(|item| self.read(*item)).collect();
        let inside = parts.iter().zip(&bound).filter_map(|(parts, associated_data)| {
            let ciphertext = &parts.as_ref().ok()?.wrapped_key;
            Some(Unwrap { ciphertext, associated_data })
        });
        let inside: Vec<_> = inside.collect();
        let mut keys = self.inner.unwrap_many(&inside, deadline).await.into_iter();
        let opened = |(parts, item): (Result<Parts<'_>, KmsError>, &Unwrap<'_>)| {
            let parts = parts?;
            let key = keys.next().unwrap_or_else(|| Err(too_few()))?;
            parts.open(&key, item.associated_data)
        };
        parts.into_iter().zip(sealed).map(opened).collect()
    }

    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
        let associated_data = &AssociatedData::none();
        self.read(Unwrap { ciphertext, associated_data }).map(|parts| parts.version)
    }
}

fn rejected() -> KmsError {
    KmsError::new(
        Code::CiphertextRejected,
        "the ciphertext was not sealed under this key, key id and annotations",
        "the stored object was changed or is of another key; restore it from a backup",
    )
}

fn failed() -> KmsError {
    KmsError::new(Code::Internal, "AES-256-GCM failed to seal a seed", "report this")
}

fn too_few() -> KmsError {
    KmsError::new(
        Code::KeeperAnswer,
        "the keeper answered fewer items than the request contained",
        "none needed: the provider sends each item again alone",
    )
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
