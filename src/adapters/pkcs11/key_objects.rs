//! Finds and makes the versions of the key: objects of the token that share one label.

use std::collections::BTreeMap;

use cryptoki::{
    error::{Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
};

use super::{meaning::Fault, object_id::ObjectId, settings::KeyLabel};
use crate::domain::{
    error::{Code, KmsError},
    key::{Fingerprint, KekVersion, VersionIdentity},
};

/// Limits the number of objects that are read.
const VERSIONS_MAX: usize = 1_000;

/// Limits how often the list is read while objects go away.
const LISTINGS: u32 = 5;

/// The length of AES-256 keys, in bytes.
const KEY_BYTES: u64 = 32;

/// Describes one key object.
#[derive(Clone, Debug)]
pub(super) struct KeyObject<H = ObjectHandle> {
    handle: H,
    id: Vec<u8>,
    /// True if the token may export the key in clear.
    exportable: bool,
}

/// Describes the objects under one label as versions of one key.
#[derive(Clone, Debug)]
pub(super) struct Versions<H = ObjectHandle> {
    /// The creation time of each version, or the fingerprint of its foreign `CKA_ID`.
    pub(super) identities: BTreeMap<KekVersion, VersionIdentity>,
    /// The objects of each version: one, unless there is a flaw.
    pub(super) handles: BTreeMap<KekVersion, Vec<H>>,
    /// True if the token may export one of them in clear.
    pub(super) exportable: bool,
    /// The reason why the key must not wrap, if there is one.
    pub(super) flaw: Option<KmsError>,
}

/// Lists the objects under `label`. Reads the list again if an object goes away meanwhile. Blocks.
///
/// # Errors
/// Returns the answer of the library.
pub(super) fn list(session: &Session, label: &KeyLabel) -> Result<Vec<KeyObject>, Fault> {
    for _ in 1..LISTINGS {
        match list_once(session, label) {
            Err(Error::Pkcs11(RvError::ObjectHandleInvalid, _)) => (),
            ended => return Ok(ended?),
        }
    }
    Ok(list_once(session, label)?)
}

fn list_once(session: &Session, label: &KeyLabel) -> Result<Vec<KeyObject>, Error> {
    let wanted = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(label.as_str().as_bytes().to_vec()),
    ];
    let handles: Result<Vec<_>, Error> =
        session.iter_objects(&wanted)?.take(VERSIONS_MAX).collect();
    let objects = handles?.into_iter().map(|handle| read(session, handle));
    objects.collect()
}

fn read(session: &Session, handle: ObjectHandle) -> Result<KeyObject, Error> {
    let (mut id, mut exportable) = (Vec::new(), false);
    let asked = [AttributeType::Id, AttributeType::Sensitive, AttributeType::Extractable];
    for attribute in session.get_attributes(handle, &asked)? {
        match attribute {
            Attribute::Id(bytes) => id = bytes,
            Attribute::Sensitive(sensitive) => exportable |= !sensitive,
            Attribute::Extractable(extractable) => exportable |= extractable,
            _ => (),
        }
    }
    Ok(KeyObject { handle, id, exportable })
}

/// Reads `objects` as versions of the key.
///
/// An object whose `CKA_ID` has another format was made by other means. It is version 1, and its
/// `CKA_ID` is its identity.
///
/// # Errors
/// Returns `key-missing` when there are no objects.
pub(super) fn versions<H: Copy>(
    objects: &[KeyObject<H>],
    label: &KeyLabel,
) -> Result<Versions<H>, KmsError> {
    if objects.is_empty() {
        return Err(KmsError::new(
            Code::KeyMissing,
            format!("the token has no AES key with the label {label}"),
            "check --pkcs11-key-label and the token; for a new cluster make the key with \
             `vault-kube-kms pkcs11 init`",
        ));
    }
    let (mut identities, mut handles) = (BTreeMap::new(), BTreeMap::<_, Vec<H>>::new());
    let mut flaw = None;
    for object in objects {
        let ours = ObjectId::parse(&object.id);
        let version = ours.map_or(KekVersion::FIRST, |id| id.version);
        let foreign = || VersionIdentity::Fingerprint(Fingerprint::of(&object.id));
        let identity = ours.map_or_else(foreign, |id| id.created.into());
        if object.id.is_empty() {
            flaw = Some(nameless(label));
        }
        let of_version = handles.entry(version).or_default();
        of_version.push(object.handle);
        if of_version.len() > 1 {
            flaw = Some(ambiguous(version, label));
        }
        identities.insert(version, identity);
    }
    let exportable = objects.iter().any(|object| object.exportable);
    Ok(Versions { identities, handles, exportable, flaw })
}

/// Makes the error for a version that several objects claim to be.
pub(super) fn ambiguous(version: KekVersion, label: &KeyLabel) -> KmsError {
    KmsError::new(
        Code::KeyUnusable,
        format!("the token has several AES keys with the label {label} that are version {version}"),
        "find the one that nothing was wrapped with, and delete it or change its label \
         (docs/keepers-pkcs11.md)",
    )
}

fn nameless(label: &KeyLabel) -> KmsError {
    KmsError::new(
        Code::KeyUnusable,
        format!("an AES key with the label {label} has an empty CKA_ID, and so no identity"),
        "give it a random CKA_ID (pkcs11-tool --set-id), or another label",
    )
}

/// Makes an AES-256 key with the `CKA_ID` `id` under `label`. The key cannot leave the token. Blocks.
///
/// # Errors
/// Returns the answer of the library.
pub(super) fn generate(
    session: &Session,
    label: &KeyLabel,
    id: ObjectId,
) -> Result<ObjectHandle, Error> {
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::ValueLen(KEY_BYTES.into()),
        Attribute::Label(label.as_str().as_bytes().to_vec()),
        Attribute::Id(id.encode()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        // A key that wraps and decrypts can export other keys of the token in clear.
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Sign(false),
        Attribute::Verify(false),
    ];
    session.generate_key(&Mechanism::AesKeyGen, &template)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::UnixTime;

    fn object(handle: u32, id: &[u8]) -> KeyObject<u32> {
        KeyObject { handle, id: id.to_vec(), exportable: false }
    }

    fn ours(handle: u32, number: u32) -> KeyObject<u32> {
        let version = KekVersion::new(number).unwrap();
        let created = UnixTime::from_secs(i64::from(number) * 100);
        object(handle, &ObjectId { version, created }.encode())
    }

    fn described(objects: &[KeyObject<u32>]) -> Versions<u32> {
        versions(objects, &KeyLabel::parse("k").unwrap()).unwrap()
    }

    #[test]
    fn reads_the_identity_of_each_version() {
        let second = KekVersion::FIRST.next();
        let found = described(&[ours(7, 2), object(8, b"\x01")]);
        assert_eq!(found.flaw, None);
        assert_eq!(found.identities[&second], UnixTime::from_secs(200).into());
        let foreign = VersionIdentity::Fingerprint(Fingerprint::of(b"\x01"));
        assert_eq!(found.identities[&KekVersion::FIRST], foreign);
        assert_eq!(
            (&found.handles[&second], &found.handles[&KekVersion::FIRST]),
            (&vec![7], &vec![8])
        );
    }

    #[test]
    fn reports_a_version_of_several_objects_and_keeps_them_all() {
        for objects in [
            [ours(7, 1), ours(8, 1)],
            [object(7, b"a"), object(8, b"b")],
            [ours(7, 1), object(8, b"b")],
        ] {
            let found = described(&objects);
            assert_eq!(found.flaw.unwrap().code(), Code::KeyUnusable);
            assert_eq!(found.handles[&KekVersion::FIRST], [7, 8]);
        }
    }

    #[test]
    fn reports_an_empty_id_and_a_missing_key() {
        assert!(described(&[object(7, b"")]).flaw.unwrap().cause().contains("empty CKA_ID"));
        let error = versions::<u32>(&[], &KeyLabel::parse("k").unwrap()).unwrap_err();
        assert_eq!(error.code(), Code::KeyMissing);
    }
}
