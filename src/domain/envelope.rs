//! The values that are stored with a wrapped seed, and the associated data that binds them
//! together.

use std::collections::BTreeMap;

use super::{
    error::{Code, KmsError},
    key::KekVersion,
    key_id::push_field,
};

/// The longest ciphertext that kube-apiserver accepts, in bytes (`encryptedDEKSourceMaxSize`).
pub const CIPHERTEXT_MAX: usize = 1024;

/// The maximum size of the annotations that kube-apiserver accepts, in bytes, names and values
/// together.
pub const ANNOTATIONS_MAX: usize = 32_768;

/// The annotation that marks objects of this provider. Every encrypted object contains it, so the
/// name is short. kube-apiserver requires a DNS-1123 name of at least two labels.
pub const FORMAT_ANNOTATION: &str = "format.vault-kube-kms";

/// The value of [`FORMAT_ANNOTATION`] that this release writes and reads.
pub const FORMAT: &[u8] = b"1";

/// The prefix that separates this associated data from other uses of the same key.
const DOMAIN: &[u8] = b"vault-kube-kms/aad/1\0";

/// A wrapped seed in the form of its keeper: 1 to 1024 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ciphertext(Vec<u8>);

impl Ciphertext {
    /// Takes over the bytes of a ciphertext.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] when `bytes` is empty or longer than [`CIPHERTEXT_MAX`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, KmsError> {
        if bytes.is_empty() || bytes.len() > CIPHERTEXT_MAX {
            return Err(KmsError::new(
                Code::InvalidRequest,
                format!(
                    "the ciphertext has {} bytes, and KMS v2 allows 1 to {CIPHERTEXT_MAX}",
                    bytes.len()
                ),
                "send the ciphertext as this provider returned it, for a seed of 32 bytes",
            ));
        }
        Ok(Self(bytes))
    }

    /// Puts `version` (4 bytes, big-endian) before `body`. This is the form for keepers whose own
    /// ciphertexts do not name their version.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] when both together are longer than [`CIPHERTEXT_MAX`].
    pub fn of_version(version: KekVersion, body: &[u8]) -> Result<Self, KmsError> {
        Self::new([&version.get().to_be_bytes(), body].concat())
    }

    /// Splits a ciphertext of [`Ciphertext::of_version`] into its version and its body. The version
    /// is not authenticated: the keeper must reject a body of another version.
    ///
    /// # Errors
    /// [`Code::CiphertextRejected`] when the version or the body is missing.
    pub fn version_and_body(&self) -> Result<(KekVersion, &[u8]), KmsError> {
        let parts = self.0.split_first_chunk().filter(|(_, body)| !body.is_empty());
        let version = |number: &[u8; 4]| KekVersion::new(u32::from_be_bytes(*number));
        let parts = parts.and_then(|(number, body)| Some((version(number)?, body)));
        parts.ok_or_else(|| {
            KmsError::new(
                Code::CiphertextRejected,
                "the ciphertext does not begin with a key version",
                "the stored object was changed or is of another key; restore it from a backup",
            )
        })
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Converts the ciphertext into its bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The annotations of an encrypted object: at most 32 KiB, names and values together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Annotations(BTreeMap<String, Vec<u8>>);

impl Annotations {
    /// Takes over the annotations of a request.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] when they are larger than [`ANNOTATIONS_MAX`].
    pub fn new(entries: BTreeMap<String, Vec<u8>>) -> Result<Self, KmsError> {
        let size = entries.iter().fold(0_usize, |sum, (name, value)| {
            sum.saturating_add(name.len()).saturating_add(value.len())
        });
        if size > ANNOTATIONS_MAX {
            return Err(KmsError::new(
                Code::InvalidRequest,
                format!("the annotations have {size} bytes, and KMS v2 allows {ANNOTATIONS_MAX}"),
                "send the annotations as this provider returned them",
            ));
        }
        Ok(Self(entries))
    }

    /// Returns the annotations that this release stores with each ciphertext.
    #[must_use]
    pub fn ours() -> Self {
        Self(BTreeMap::from([(FORMAT_ANNOTATION.to_owned(), FORMAT.to_vec())]))
    }

    /// Returns whether these are exactly the annotations that this release writes.
    #[must_use]
    pub fn are_ours(&self) -> bool {
        self.0.len() == 1 && self.0.get(FORMAT_ANNOTATION).is_some_and(|value| value == FORMAT)
    }

    /// Returns whether a release of this provider may have written these annotations.
    ///
    /// Ignores the case of the names. A changed name is then rejected, and the object does not pass
    /// for one of another plugin.
    #[must_use]
    pub fn claim_to_be_ours(&self) -> bool {
        self.0.keys().any(|name| name.eq_ignore_ascii_case(FORMAT_ANNOTATION))
    }

    /// Converts the annotations into their names and values.
    #[must_use]
    pub fn into_entries(self) -> BTreeMap<String, Vec<u8>> {
        self.0
    }
}

/// The data that a keeper authenticates together with a seed. The keeper does not store it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AssociatedData(Vec<u8>);

impl AssociatedData {
    /// Returns the empty associated data, which other plugins use.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Makes the associated data that binds a ciphertext to its key id and its annotations
    /// (`docs/formats.md`).
    #[must_use]
    pub fn binding(key_id: &str, annotations: &Annotations) -> Self {
        let mut bytes = DOMAIN.to_vec();
        push_field(&mut bytes, key_id.as_bytes());
        let count = u32::try_from(annotations.0.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&count.to_be_bytes());
        for (name, value) in &annotations.0 {
            push_field(&mut bytes, name.as_bytes());
            push_field(&mut bytes, value);
        }
        Self(bytes)
    }

    /// Returns the bytes. They are empty for [`AssociatedData::none`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(entries: &[(&str, &str)]) -> Annotations {
        let entries = entries.iter().map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec()));
        Annotations::new(entries.collect()).unwrap()
    }

    #[test]
    fn puts_the_version_before_the_body() {
        let version = KekVersion::new(0x0102_0304).unwrap();
        let ciphertext = Ciphertext::of_version(version, b"body").unwrap();
        assert_eq!(ciphertext.as_bytes(), b"\x01\x02\x03\x04body");
        assert_eq!(ciphertext.version_and_body(), Ok((version, &b"body"[..])));
        for bad in [&b"\0\0\0"[..], b"\0\0\0\x01", b"\0\0\0\0body"] {
            let error = Ciphertext::new(bad.to_vec()).unwrap().version_and_body().unwrap_err();
            assert_eq!(error.code(), Code::CiphertextRejected, "{bad:?}");
        }
        assert!(Ciphertext::of_version(version, &[0; CIPHERTEXT_MAX]).is_err());
    }

    #[test]
    fn enforces_the_limits_of_kms_v2() {
        assert!(Ciphertext::new(vec![]).is_err());
        assert!(Ciphertext::new(vec![0; CIPHERTEXT_MAX]).is_ok());
        assert!(Ciphertext::new(vec![0; CIPHERTEXT_MAX + 1]).is_err());
        let name = "a.b".to_owned();
        let fits = BTreeMap::from([(name.clone(), vec![0; ANNOTATIONS_MAX - 3])]);
        assert!(Annotations::new(fits).is_ok());
        let over = BTreeMap::from([(name, vec![0; ANNOTATIONS_MAX - 2])]);
        assert!(Annotations::new(over).is_err());
    }

    #[test]
    fn accepts_only_the_exact_format_annotation() {
        assert!(Annotations::ours().are_ours());
        assert!(!annotations(&[]).are_ours());
        assert!(!annotations(&[(FORMAT_ANNOTATION, "2")]).are_ours());
        assert!(!annotations(&[(FORMAT_ANNOTATION, "1"), ("a.b", "")]).are_ours());
        assert!(annotations(&[("Format.vault-kube-kms", "1")]).claim_to_be_ours());
        assert!(!annotations(&[("local-kek.kms.kubernetes.io", "x")]).claim_to_be_ours());
    }

    #[test]
    fn separates_the_fields_of_associated_data() {
        let a = AssociatedData::binding("v1.x", &annotations(&[("a.b", "cd")]));
        let b = AssociatedData::binding("v1.x", &annotations(&[("a.bc", "d")]));
        let c = AssociatedData::binding("v1.xa.b", &annotations(&[("", "cd")]));
        assert!(a != b && b != c && a != c);
    }
}
