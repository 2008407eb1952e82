//! The form in which the API server stored an object.
//!
//! The prefixes are those of `k8s.io/apiserver/pkg/server/options/encryptionconfig`. The name of a
//! provider or of a key contains no colon.

use super::envelope::Envelope;

/// The beginning of each encrypted value.
const ENCRYPTED: &[u8] = b"k8s:enc:";

/// The beginning of a clear value in protobuf (`k8s.io/apimachinery`, `serializer/protobuf`).
const PROTOBUF: &[u8] = b"k8s\0";

/// The beginning of a clear value in CBOR, which the API server writes for custom resources with the
/// feature `CBORServingAndStorage` (`k8s.io/apimachinery`, `serializer/cbor`; RFC 8949, 3.4.6).
const CBOR: &[u8] = b"\xd9\xd9\xf7";

/// The longest name of a provider or of its key that is read, in bytes. Names are kept in memory.
const NAME_MAX: usize = 1_024;

/// How an object is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored<'a> {
    /// Encrypted by a KMS v2 plugin.
    KmsV2(Envelope<'a>),
    /// Encrypted in another way: `kms/v1/<provider>`, `aescbc/v1/<key>`, `aesgcm/v1/<key>`,
    /// `secretbox/v1/<key>`.
    Other(String),
    /// Not encrypted.
    Clear,
    /// Not in a form that the API server writes. The text says why.
    Unreadable(String),
}

impl<'a> Stored<'a> {
    /// Returns the form of `value`, the value of an object in etcd.
    #[must_use]
    pub fn of(value: &'a [u8]) -> Self {
        let Some(rest) = value.strip_prefix(ENCRYPTED) else {
            return if is_clear(value) {
                Self::Clear
            } else {
                Self::Unreadable("it is neither encrypted nor protobuf, JSON or CBOR".to_owned())
            };
        };
        let mut parts = rest.splitn(4, |byte| *byte == b':');
        let mut word = || {
            let part = parts.next().filter(|part| part.len() <= NAME_MAX)?;
            std::str::from_utf8(part).ok()
        };
        match (word(), word(), word(), parts.next()) {
            (Some("kms"), Some("v2"), Some(provider), Some(body)) => {
                match Envelope::decode(provider, body) {
                    Ok(envelope) => Self::KmsV2(envelope),
                    Err(problem) => Self::Unreadable(problem),
                }
            }
            (Some(kind), Some(version), Some(name), Some(_)) => {
                Self::Other(format!("{kind}/{version}/{name}"))
            }
            _ => Self::Unreadable("its prefix names no provider".to_owned()),
        }
    }
}

/// Returns whether `value` begins as an object that is not encrypted.
pub(super) fn is_clear(value: &[u8]) -> bool {
    [PROTOBUF, CBOR, b"{"].iter().any(|begin| value.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::envelope::tests::{encoded, example};

    #[test]
    fn names_each_form() {
        let stored = [b"k8s:enc:kms:v2:vault:", encoded(&example()).as_slice()].concat();
        assert!(matches!(Stored::of(&stored), Stored::KmsV2(of) if of.provider == "vault"));
        assert_eq!(
            Stored::of(b"k8s:enc:aescbc:v1:key1:xx:yy"),
            Stored::Other("aescbc/v1/key1".into())
        );
        assert_eq!(Stored::of(b"k8s:enc:kms:v1:old:xx"), Stored::Other("kms/v1/old".into()));
        assert_eq!(Stored::of(b"k8s\0\n\x0c"), Stored::Clear);
        assert_eq!(Stored::of(b"{\"kind\":\"Secret\"}"), Stored::Clear);
        assert_eq!(Stored::of(b"\xd9\xd9\xf7\xa1"), Stored::Clear);
    }

    #[test]
    fn a_damaged_value_is_unreadable() {
        for value in [
            &b""[..],
            b"\xff\xff",
            &[b"k8s:enc:aescbc:v1:", &[b'x'; 2_000][..], b":"].concat(),
            b"k8s:enc:",
            b"k8s:enc:kms:v2:",
            b"k8s:enc:kms:v2:vault:\xff",
        ] {
            assert!(matches!(Stored::of(value), Stored::Unreadable(_)), "{value:?}");
        }
    }
}
