//! Planted faults of the program. Each breaks one rule, which shows that the rule can fail.

use vault_kube_kms::domain::{
    error::{Code, KmsError},
    key::KekVersion,
    key_id::{KeyId, KeyIdentity, Lineage},
    time::UnixTime,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Status names another key id than Encrypt.
    OtherKeyId,
    /// Decrypt returns other bytes.
    WrongPlaintext,
    /// Decrypt fails.
    FailedRead,
    /// All versions have one key id.
    OneKeyId,
    /// The key id changes back and forth.
    AlternatingKeyId,
    /// One node takes each new version at once.
    EarlySwitch,
    /// Status fails for ever after the last fault.
    FailedStatus,
    /// The polls of the API servers fail for ever after the last fault.
    FailedPolls,
    /// The API servers get no wrapped seed.
    NoEncrypt,
    /// The oldest version is forgotten.
    ForgottenVersion,
    /// A missing proof stops a version that has written before.
    StrictProof,
    /// The key is read from the keeper only once.
    CachedKey,
}

/// Each planted fault, and a part of what its rule says.
pub const ALL: [(Plant, &str); 12] = [
    (Plant::OtherKeyId, "Status and Encrypt disagree twice in a row"),
    (Plant::WrongPlaintext, "a wrong plaintext"),
    (Plant::FailedRead, "cannot read what was written"),
    (Plant::OneKeyId, "has two keys"),
    (Plant::AlternatingKeyId, "went back to"),
    (Plant::EarlySwitch, "nodes write under"),
    (Plant::FailedStatus, "at the end: Err"),
    (Plant::FailedPolls, "is not well at the end"),
    (Plant::NoEncrypt, "an API server cannot write"),
    (Plant::ForgottenVersion, "an older answer undid a newer one"),
    (Plant::StrictProof, "a version without a proof stops the one before it"),
    (Plant::CachedKey, "nothing vouches for the wrap"),
];

impl Plant {
    /// Returns the key id that the program tells at `now_ms` in place of `right`.
    pub fn key_id(self, right: KeyId, now_ms: u64) -> KeyId {
        match self {
            Self::OneKeyId => other_id(KekVersion::FIRST),
            Self::AlternatingKeyId if (now_ms / 10_000).is_multiple_of(2) => {
                other_id(KekVersion::FIRST)
            }
            _ => right,
        }
    }

    /// Returns whether objects can be read under the planted key ids.
    pub fn has_readable_ids(self) -> bool {
        !matches!(self, Self::OneKeyId | Self::AlternatingKeyId)
    }
}

/// Returns a key id that no key of the simulation has.
pub fn other_id(version: KekVersion) -> KeyId {
    let identity = KeyIdentity::new(Lineage::of_place("another", &["k"]), 0);
    identity.id_of(version, UnixTime::default())
}

pub fn failure(code: Code) -> KmsError {
    KmsError::new(code, "planted", "none")
}
