//! The encrypted object that the API server stores for a KMS v2 plugin: `EncryptedObject` of
//! `k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2`.

use std::collections::BTreeMap;

use prost::Message;
use vault_kube_kms::domain::{
    envelope::{CIPHERTEXT_MAX, FORMAT_ANNOTATION},
    key::KekVersion,
    key_id::{KEY_ID_MAX, KeyId},
};

/// How the API server derives the key of an object from the unwrapped seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedUse {
    /// The seed is the AES-GCM key itself (Kubernetes 1.27, and 1.28 without `KMSv2KDF`).
    Key,
    /// The key is derived by HKDF-SHA256 with an extended nonce.
    DerivedKey,
}

/// An encrypted object, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The name of the plugin in the `EncryptionConfiguration`.
    pub provider: &'a str,
    /// The key id that the plugin gave: 1 to 1024 bytes.
    pub key_id: String,
    /// The wrapped seed: 1 to 1024 bytes.
    pub wrapped_seed: Vec<u8>,
    /// The annotations of the plugin.
    pub annotations: BTreeMap<String, Vec<u8>>,
    /// How the key of the object derives from the seed.
    pub seed_use: SeedUse,
    /// The encrypted object: nonces, ciphertext and tag.
    pub encrypted: Vec<u8>,
}

/// The wire form. The numbers are those of the API server's `api.proto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct EncryptedObject {
    #[prost(bytes = "vec", tag = "1")]
    encrypted_data: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    encrypted_dek_source: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
    #[prost(int32, tag = "5")]
    encrypted_dek_source_type: i32,
}

impl<'a> Envelope<'a> {
    /// Reads `body`, which follows the prefix of the plugin `provider`.
    ///
    /// # Errors
    /// A text that says why the API server cannot read it either: not protobuf, or a field that is
    /// missing, too long or unknown.
    pub fn decode(provider: &'a str, body: &[u8]) -> Result<Self, String> {
        let object = EncryptedObject::decode(body)
            .map_err(|error| format!("its envelope is not valid protobuf: {error}"))?;
        let seed_use = match object.encrypted_dek_source_type {
            0 => SeedUse::Key,
            1 => SeedUse::DerivedKey,
            other => return Err(format!("its envelope has the unknown seed type {other}")),
        };
        let sizes = [
            ("key id", object.key_id.len(), KEY_ID_MAX),
            ("wrapped seed", object.encrypted_dek_source.len(), CIPHERTEXT_MAX),
            ("encrypted data", object.encrypted_data.len(), usize::MAX),
        ];
        for (name, length, most) in sizes {
            if length == 0 || length > most {
                return Err(format!("its envelope has a {name} of {length} bytes"));
            }
        }
        Ok(Self {
            provider,
            key_id: object.key_id,
            wrapped_seed: object.encrypted_dek_source,
            annotations: object.annotations,
            seed_use,
            encrypted: object.encrypted_data,
        })
    }

    /// Returns whether vault-kube-kms, or a program of its library, wrote this object.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.annotations.contains_key(FORMAT_ANNOTATION)
            && KeyId::version_claimed(&self.key_id).is_some()
    }

    /// Returns the version of the key that wrapped the seed, as the wrapped seed itself claims it:
    /// `vault:v3:...` of Transit, and its like. `None` for a plugin with another form.
    #[must_use]
    pub fn version_claimed(&self) -> Option<KekVersion> {
        let text = std::str::from_utf8(&self.wrapped_seed).ok()?;
        let mut parts = text.splitn(3, ':');
        let (keeper, version) = (parts.next()?, parts.next()?);
        let is_word = !keeper.is_empty() && keeper.bytes().all(|b| b.is_ascii_graphic());
        parts.next().filter(|_| is_word)?;
        KekVersion::parse(version.strip_prefix('v')?)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn example() -> EncryptedObject {
        EncryptedObject {
            encrypted_data: vec![7; 60],
            key_id: "v7.i3mXGWk7kRIMaqQWOKfv-Q".to_owned(),
            encrypted_dek_source: b"vault:v7:AAAA".to_vec(),
            annotations: BTreeMap::from([(FORMAT_ANNOTATION.to_owned(), b"1".to_vec())]),
            encrypted_dek_source_type: 1,
        }
    }

    pub(crate) fn of_version(version: u32) -> Vec<u8> {
        let wrapped = format!("vault:v{version}:AAAA").into_bytes();
        encoded(&EncryptedObject { encrypted_dek_source: wrapped, ..example() })
    }

    pub(crate) fn encoded(object: &EncryptedObject) -> Vec<u8> {
        object.encode_to_vec()
    }

    fn decoded(object: &EncryptedObject) -> Result<Envelope<'static>, String> {
        Envelope::decode("vault", &encoded(object))
    }

    #[test]
    fn reads_the_fields_and_the_version() {
        let envelope = decoded(&example()).unwrap();
        assert_eq!(envelope.seed_use, SeedUse::DerivedKey);
        assert!(envelope.is_ours());
        assert_eq!(envelope.version_claimed().map(KekVersion::get), Some(7));
    }

    #[test]
    fn an_object_of_another_plugin_is_not_ours() {
        let foreign = EncryptedObject {
            annotations: BTreeMap::new(),
            key_id: "transit-key-1".to_owned(),
            ..example()
        };
        let envelope = decoded(&foreign).unwrap();
        assert!(!envelope.is_ours());
        assert_eq!(envelope.version_claimed().map(KekVersion::get), Some(7));
        let opaque = EncryptedObject { encrypted_dek_source: vec![0xff, 1], ..foreign };
        assert_eq!(decoded(&opaque).unwrap().version_claimed(), None);
    }

    #[test]
    fn a_keeper_is_a_printable_word() {
        for (seed, version) in
            [("azure-kv:v3:AA", Some(3)), ("\x1b[2J:v3:AA", None), (" :v3:AA", None)]
        {
            let wrapped = seed.as_bytes().to_vec();
            let envelope = decoded(&EncryptedObject { encrypted_dek_source: wrapped, ..example() });
            assert_eq!(
                envelope.unwrap().version_claimed().map(KekVersion::get),
                version,
                "{seed:?}"
            );
        }
    }

    #[test]
    fn refuses_what_the_api_server_refuses() {
        for object in [
            EncryptedObject { key_id: String::new(), ..example() },
            EncryptedObject { key_id: "x".repeat(1025), ..example() },
            EncryptedObject { encrypted_dek_source: Vec::new(), ..example() },
            EncryptedObject { encrypted_data: Vec::new(), ..example() },
            EncryptedObject { encrypted_dek_source_type: 2, ..example() },
        ] {
            assert!(decoded(&object).is_err(), "{object:?}");
        }
    }
}
