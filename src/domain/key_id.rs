//! Derives `key_id`, the public name of one key version, from facts that are equal on every node.
//!
//! The format is fixed (`docs/formats.md`), because objects in etcd outlive releases.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::{
    error::{Code, KmsError},
    key::{KekVersion, VersionIdentity},
};

/// The longest key id that kube-apiserver accepts, in bytes (`KeyIDMaxSize` in its `envelope.go`).
pub const KEY_ID_MAX: usize = 1024;

/// The prefix that separates these hashes from other uses of SHA-256 over the same facts.
const OF_CREATED: &[u8] = b"vault-kube-kms/key-id/1\0";

/// The prefix for versions whose identity is a fingerprint.
const OF_FINGERPRINT: &[u8] = b"vault-kube-kms/key-id/fingerprint/1\0";

/// How many bytes of the hash are kept: 128 bits, 22 characters of base64url.
const HASH_BYTES: usize = 16;

/// The length of the encoded hash, in characters.
const HASH_CHARS: usize = 22;

/// The public name of one key version: `v<version>.` and 22 characters of base64url.
///
/// It is printable, has at most 34 bytes, and contains no name of a mount or a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(String);

impl KeyId {
    /// Returns the text form that kube-apiserver receives and stores in etcd.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the SHA-256 of the id in the form of kube-apiserver's metric label `key_id_hash`:
    /// `sha256:` and lower-case hex.
    #[must_use]
    pub fn hash(&self) -> String {
        Self::hash_of(&self.0)
    }

    /// Returns the SHA-256 of `key_id`, which may be an id of another provider, in the same form.
    #[must_use]
    pub fn hash_of(key_id: &str) -> String {
        use fmt::Write as _;
        let mut text = String::from("sha256:");
        for byte in Sha256::digest(key_id.as_bytes()) {
            let _infallible = write!(text, "{byte:02x}");
        }
        text
    }

    /// Returns the version that `text` names, or `None` when `text` does not have the form of a key
    /// id of this provider. Does not check the hash.
    #[must_use]
    pub fn version_claimed(text: &str) -> Option<KekVersion> {
        let (number, hash) = text.strip_prefix('v')?.split_once('.')?;
        let well_formed = hash.len() == HASH_CHARS
            && hash.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if well_formed { KekVersion::parse(number) } else { None }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The part of a key's identity that all its versions share: where the key is, or its given name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lineage(Vec<u8>);

impl Lineage {
    /// Makes the lineage of a key from its place at a keeper, such as namespace, mount and key
    /// name.
    #[must_use]
    pub fn of_place(keeper: &str, place: &[&str]) -> Self {
        let mut bytes = vec![0];
        push_field(&mut bytes, keeper.as_bytes());
        for part in place {
            push_field(&mut bytes, part.as_bytes());
        }
        Self(bytes)
    }

    /// Makes the lineage that the operator chose (`--key-lineage`) for a key that moved.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] unless `name` has 1 to 256 bytes of printable ASCII without blanks.
    pub fn named(name: &str) -> Result<Self, KmsError> {
        if name.is_empty() || name.len() > 256 || !name.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(KmsError::new(
                Code::InvalidRequest,
                "the key lineage is not 1 to 256 printable ASCII characters without blanks",
                "choose a short name such as prod-etcd",
            ));
        }
        let mut bytes = vec![1];
        push_field(&mut bytes, name.as_bytes());
        Ok(Self(bytes))
    }
}

/// What key ids of this cluster derive from: the lineage, and how often the operator went back to
/// an older KEK (`--key-generation`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyIdentity {
    lineage: Lineage,
    generation: u16,
}

impl KeyIdentity {
    /// Makes the identity from its parts. `generation` is 0 unless the operator sets it.
    #[must_use]
    pub const fn new(lineage: Lineage, generation: u16) -> Self {
        Self { lineage, generation }
    }

    /// Returns the id that new objects of `version`, identified by `identity`, get now.
    #[must_use]
    pub fn id_of(&self, version: KekVersion, identity: impl Into<VersionIdentity>) -> KeyId {
        self.id_in(self.generation, version, identity.into())
    }

    /// Returns whether `text` is an id of `version`, identified by `identity`. It accepts every
    /// generation up to one above the configured one: during a rolling restart another node may use
    /// the next one.
    #[must_use]
    pub fn names(&self, text: &str, version: KekVersion, identity: VersionIdentity) -> bool {
        (0..=self.generation.saturating_add(1))
            .rev()
            .any(|generation| self.id_in(generation, version, identity).as_str() == text)
    }

    fn id_in(&self, generation: u16, version: KekVersion, identity: VersionIdentity) -> KeyId {
        let mut hasher = Sha256::new_with_prefix(match identity {
            VersionIdentity::Created(_) => OF_CREATED,
            VersionIdentity::Fingerprint(_) => OF_FINGERPRINT,
        });
        let mut lineage = Vec::with_capacity(self.lineage.0.len().saturating_add(4));
        push_field(&mut lineage, &self.lineage.0);
        hasher.update(&lineage);
        hasher.update(generation.to_be_bytes());
        hasher.update(version.get().to_be_bytes());
        match identity {
            VersionIdentity::Created(time) => hasher.update(time.secs().to_be_bytes()),
            VersionIdentity::Fingerprint(fingerprint) => hasher.update(fingerprint.as_bytes()),
        }
        let hash = hasher.finalize();
        let kept = hash.get(..HASH_BYTES).unwrap_or(&hash);
        KeyId(format!("v{version}.{}", URL_SAFE_NO_PAD.encode(kept)))
    }
}

/// Appends the length of `field` (4 bytes, big endian) and then `field`. With the lengths, two
/// different lists of fields never give the same bytes.
pub(super) fn push_field(bytes: &mut Vec<u8>, field: &[u8]) {
    let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(field);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{key::Fingerprint, time::UnixTime};

    fn identity(generation: u16) -> KeyIdentity {
        KeyIdentity::new(Lineage::of_place("transit", &["", "transit", "k1"]), generation)
    }

    fn created(seconds: i64) -> VersionIdentity {
        UnixTime::from_secs(seconds).into()
    }

    fn version(number: u32) -> KekVersion {
        KekVersion::new(number).unwrap()
    }

    #[test]
    fn derives_the_documented_id() {
        let id = identity(0).id_of(version(7), created(1_700_000_000));
        assert_eq!(id.as_str(), "v7.i3mXGWk7kRIMaqQWOKfv-Q");
        assert_eq!(KeyId::version_claimed(id.as_str()), Some(version(7)));
    }

    #[test]
    fn each_fact_changes_the_id() {
        let base = identity(0).id_of(version(1), created(5));
        let other_place = Lineage::of_place("transit", &["", "transi", "tk1"]);
        for other in [
            identity(1).id_of(version(1), created(5)),
            identity(0).id_of(version(2), created(5)),
            identity(0).id_of(version(1), created(6)),
            KeyIdentity::new(other_place, 0).id_of(version(1), created(5)),
            identity(0).id_of(version(1), VersionIdentity::Fingerprint(Fingerprint::of(b"a"))),
        ] {
            assert_ne!(base, other);
        }
    }

    proptest! {
        #[test]
        fn ids_are_injective_stable_printable_and_short(
            (a, b) in (facts(), facts()),
        ) {
            let id = |(place, name, generation, number, second): &Facts| {
                let lineage = Lineage::of_place("transit", &[place, "transit", name]);
                KeyIdentity::new(lineage, *generation)
                    .id_of(KekVersion::new(*number).unwrap(), created(*second))
            };
            prop_assert_eq!(id(&a) == id(&b), a == b);
            prop_assert_eq!(id(&a), id(&a));
            prop_assert!(id(&a).as_str().len() <= 34);
            prop_assert!(id(&a).as_str().bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(KeyId::version_claimed(id(&a).as_str()).map(KekVersion::get), Some(a.3));
        }
    }

    type Facts = (String, String, u16, u32, i64);

    /// Draws from few values, so that two draws often differ in a single fact.
    fn facts() -> impl Strategy<Value = Facts> {
        ("[a/]{0,2}", "[ab]{1,2}", 0..3_u16, 1..4_u32, 1_700_000_000..1_700_000_003_i64)
    }

    #[test]
    fn accepts_ids_of_generations_up_to_the_next_one() {
        let created = created(5);
        let ours = identity(1);
        for generation in 0..=2 {
            let id = identity(generation).id_of(version(1), created);
            assert!(ours.names(id.as_str(), version(1), created), "{generation}");
        }
        let beyond = identity(3).id_of(version(1), created);
        assert!(!ours.names(beyond.as_str(), version(1), created));
    }

    #[test]
    fn finds_no_version_in_a_foreign_key_id() {
        for text in ["", "1", "v1", "v1.", "v1.short", "v0.AAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(KeyId::version_claimed(text), None, "{text:?}");
        }
    }
}
