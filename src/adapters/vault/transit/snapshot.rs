//! Converts a key read into a snapshot: versions, minimums, and the reason why a key must not wrap.

use std::collections::BTreeMap;

use crate::{
    adapters::vault::{servers::unreadable, wire::KeyData},
    domain::{
        error::{Code, KmsError},
        key::{Fingerprint, KekSnapshot, KekVersion, KeyWarning, VersionIdentity},
        time::UnixTime,
    },
};

/// The key types that authenticate associated data.
const AEAD_TYPES: [&str; 5] =
    ["aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305", EXTERNAL];

/// The other types of Transit keys. A key of such a type is refused by its name.
const OTHER_TYPES: [&str; 15] = [
    "ecdsa-p256",
    "ecdsa-p384",
    "ecdsa-p521",
    "ed25519",
    "rsa-2048",
    "rsa-3072",
    "rsa-4096",
    "hmac",
    "managed_key",
    "aes128-cmac",
    "aes192-cmac",
    "aes256-cmac",
    "ml-dsa",
    "hybrid",
    "slh-dsa",
];

/// The type of a key that is stored in another keeper (OpenBao's external keys). The proof of each
/// version tests whether the key authenticates associated data.
const EXTERNAL: &str = "external-key";

const BACKUP_ALLOWED: KeyWarning = KeyWarning::new(
    "allow_plaintext_backup",
    "the key can be read in clear through a backup",
    FOR_GOOD,
);
const DELETION_ALLOWED: KeyWarning = KeyWarning::new(
    "deletion_allowed",
    "the key can be deleted, and all data with it",
    "set deletion_allowed=false on the key",
);
const EXPORTABLE: KeyWarning =
    KeyWarning::new("exportable", "the key can be read out of the keeper in clear", FOR_GOOD);

/// The remedy for settings that cannot be unset.
const FOR_GOOD: &str = "it cannot be unset: create a key without it, and move to that key";

/// Returns the snapshot for `data`, which was read at `keeper_time`.
///
/// # Errors
/// Returns [`Code::KeeperAnswer`] if `data` contradicts itself.
pub(super) fn snapshot(
    data: &KeyData,
    keeper_time: Option<UnixTime>,
) -> Result<KekSnapshot, KmsError> {
    let latest = KekVersion::new(data.latest_version)
        .ok_or_else(|| unreadable("the latest key version is 0"))?;
    let mut versions: BTreeMap<_, VersionIdentity> = BTreeMap::new();
    let mut all_identified = !data.keys.is_empty();
    for (number, created) in &data.keys {
        let version = KekVersion::parse(number)
            .ok_or_else(|| unreadable("a key version is not a valid number"))?;
        match identity(created, &data.kind) {
            Some(identity) => drop(versions.insert(version, identity)),
            None => all_identified = false,
        }
    }
    let flaw = flaw(data, all_identified);
    if flaw.is_none() && versions.last_key_value().map(|(version, _)| *version) != Some(latest) {
        return Err(unreadable("the latest key version is not among its versions"));
    }
    let settings = [
        (data.allow_plaintext_backup, BACKUP_ALLOWED),
        (data.deletion_allowed, DELETION_ALLOWED),
        (data.exportable, EXPORTABLE),
    ];
    let warnings = settings.into_iter().filter_map(|(set, warning)| set.then_some(warning));
    let min_decryption = KekVersion::new(data.min_decryption_version);
    Ok(KekSnapshot::new(versions)
        .with_latest(latest)
        .with_min_decryption(min_decryption.unwrap_or(KekVersion::FIRST))
        .with_min_encryption(KekVersion::new(data.min_encryption_version))
        .with_keeper_time(keeper_time)
        .with_flaw(flaw)
        .with_warnings(warnings.collect()))
}

/// Returns the identity of one version: its creation time in seconds, or a fingerprint of the
/// external key's name. External keys have no creation time.
fn identity(shown: &serde_json::Value, kind: &str) -> Option<VersionIdentity> {
    match (shown.as_i64(), shown.as_str()) {
        (Some(seconds), _) => Some(UnixTime::from_secs(seconds).into()),
        (None, Some(name)) if kind == EXTERNAL => {
            Some(VersionIdentity::Fingerprint(Fingerprint::of(name.as_bytes())))
        }
        _ => None,
    }
}

fn flaw(data: &KeyData, all_identified: bool) -> Option<KmsError> {
    let unusable =
        |cause: String, remedy: &'static str| Some(KmsError::new(Code::KeyUnusable, cause, remedy));
    if !AEAD_TYPES.contains(&data.kind.as_str()) {
        // The type is a text of the keeper, so only a known one is repeated.
        let of_type = OTHER_TYPES.iter().find(|known| **known == data.kind);
        let of_type = of_type.map_or("an unknown type".to_owned(), |kind| format!("type {kind}"));
        return unusable(
            format!("a key of {of_type} cannot bind a ciphertext to its object"),
            "use a key of type aes256-gcm96",
        );
    }
    if data.derived || data.convergent_encryption {
        return unusable(
            "the key is derived or convergent".to_owned(),
            "use a key that was created without derived and convergent_encryption",
        );
    }
    if data.soft_deleted {
        return unusable("the key is soft-deleted".to_owned(), "restore it at the keeper");
    }
    if !all_identified {
        return unusable(
            "the key's versions have no creation times".to_owned(),
            "use a key of type aes256-gcm96, or OpenBao's external-key",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(change: &serde_json::Value) -> Result<KekSnapshot, KmsError> {
        let mut body = serde_json::json!({
            "type": "aes256-gcm96", "latest_version": 2, "min_decryption_version": 1,
            "min_encryption_version": 0, "keys": {"1": 100, "2": 200}, "unknown": [],
        });
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        snapshot(&serde_json::from_value(body).unwrap(), None)
    }

    #[test]
    fn reads_a_symmetric_key() {
        let seen = read(&serde_json::json!({"exportable": true})).unwrap();
        assert_eq!(seen.versions.len(), 2);
        assert_eq!((seen.latest.get(), seen.min_encryption, seen.flaw), (2, None, None));
        assert_eq!(seen.warnings, [EXPORTABLE]);
    }

    #[test]
    fn returns_a_flaw_for_keys_that_cannot_bind() {
        let rsa = serde_json::json!({"creation_time": "2026-01-01T00:00:00Z"});
        for change in [
            serde_json::json!({"type": "rsa-2048", "keys": {"1": rsa, "2": rsa}}),
            serde_json::json!({"type": "hmac", "keys": {}}),
            serde_json::json!({"derived": true}),
            serde_json::json!({"soft_deleted": true}),
            serde_json::json!({"keys": {"1": "ref", "2": "ref"}}),
        ] {
            let flaw = read(&change).unwrap().flaw;
            assert_eq!(flaw.map(|f| f.code()), Some(Code::KeyUnusable), "{change}");
        }
    }

    #[test]
    fn identifies_versions_of_an_external_key_by_their_references() {
        let external = |first: &str| {
            let keys = serde_json::json!({"1": first, "2": "hsm:k2"});
            read(&serde_json::json!({"type": "external-key", "keys": keys})).unwrap()
        };
        let (seen, other) = (external("hsm:k1"), external("hsm:other"));
        assert_eq!((seen.flaw.clone(), seen.versions.len()), (None, 2));
        assert_eq!(seen, external("hsm:k1"));
        assert_ne!(seen.versions, other.versions);
    }

    #[test]
    fn rejects_an_answer_that_contradicts_itself() {
        for change in [
            serde_json::json!({"latest_version": 3}),
            serde_json::json!({"latest_version": 0}),
            serde_json::json!({"keys": {"x": 1, "2": 2}}),
        ] {
            assert_eq!(read(&change).unwrap_err().code(), Code::KeeperAnswer, "{change}");
        }
    }
}
