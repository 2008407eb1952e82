//! The JSON bodies of Vault and OpenBao. Unknown fields are ignored, because each server adds its
//! own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{request_id, servers::Expected};

/// `POST {mount}/encrypt/{key}`.
#[derive(Serialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct EncryptBody {
    pub(super) plaintext: String,
    pub(super) key_version: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) associated_data: String,
}

/// `POST {mount}/decrypt/{key}`.
#[derive(Serialize)]
pub(super) struct DecryptBody<'a> {
    pub(super) ciphertext: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) associated_data: String,
    /// The server returns it with the item's result. Only batches set it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) reference: String,
}

/// `POST auth/{mount}/login` of an `AppRole` mount.
#[derive(Serialize)]
pub(super) struct AppRoleBody<'a> {
    pub(super) role_id: &'a str,
    /// `None` if the role needs no secret ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret_id: Option<&'a str>,
}

/// `POST auth/{mount}/login` of a `jwt` or `kubernetes` mount.
#[derive(Serialize)]
pub(super) struct JwtBody<'a> {
    /// Empty if the mount has a default role.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) role: &'a str,
    pub(super) jwt: &'a str,
}

/// `POST auth/{mount}/login` of a `cert` mount.
#[derive(Serialize)]
pub(super) struct CertBody<'a> {
    /// Empty if the server selects the role by the certificate.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) name: &'a str,
}

/// `POST sys/wrapping/lookup`.
#[derive(Serialize)]
pub(super) struct WrappedBody<'a> {
    pub(super) token: &'a str,
}

/// An answer with `data`.
#[derive(Deserialize)]
pub(super) struct Data<T> {
    /// The id of this request in the server's audit log.
    #[serde(default, deserialize_with = "request_id::read")]
    pub(super) request_id: Option<String>,
    pub(super) data: T,
}

/// The `data` of an encrypt answer. Servers before Vault 1.6 do not send `key_version`.
#[derive(Deserialize)]
pub(super) struct EncryptData {
    pub(super) ciphertext: String,
    pub(super) key_version: Option<u32>,
}

/// The `data` of a decrypt answer.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct DecryptData {
    pub(super) plaintext: String,
}

/// The `data` of a key read.
#[expect(clippy::struct_excessive_bools, reason = "the server's own fields")]
#[derive(Deserialize)]
pub(super) struct KeyData {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) latest_version: u32,
    #[serde(default)]
    pub(super) min_decryption_version: u32,
    #[serde(default)]
    pub(super) min_encryption_version: u32,
    /// HMAC keys have none. The values are numbers for symmetric keys only.
    #[serde(default)]
    pub(super) keys: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    pub(super) derived: bool,
    #[serde(default)]
    pub(super) convergent_encryption: bool,
    #[serde(default)]
    pub(super) soft_deleted: bool,
    #[serde(default)]
    pub(super) exportable: bool,
    #[serde(default)]
    pub(super) allow_plaintext_backup: bool,
    #[serde(default)]
    pub(super) deletion_allowed: bool,
}

/// An answer with `auth`.
#[derive(Deserialize)]
pub(super) struct Authenticated {
    pub(super) auth: Auth,
}

/// The `auth` of a login or a renewal.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct Auth {
    pub(super) client_token: String,
    /// In seconds. 0 means that the token never expires.
    pub(super) lease_duration: u64,
    #[serde(default)]
    pub(super) renewable: bool,
    #[serde(default)]
    pub(super) num_uses: i64,
}

/// The `data` of a look-up of a token.
#[derive(Deserialize)]
pub(super) struct TokenData {
    /// The remaining lifetime in whole seconds. It is 0 in the last second, and for a token that
    /// never expires.
    pub(super) ttl: u64,
    /// When the token expires. Null if it never does.
    #[serde(default)]
    pub(super) expire_time: serde_json::Value,
    #[serde(default)]
    pub(super) renewable: bool,
    #[serde(default)]
    pub(super) num_uses: i64,
}

/// An unwrapped token. A program that wraps a token writes it into `data`. A login whose answer is
/// wrapped has it in `auth`.
#[derive(Deserialize)]
pub(super) struct UnwrappedToken {
    pub(super) data: Option<TokenText>,
    pub(super) auth: Option<Auth>,
}

/// The `data` of an unwrapped token.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct TokenText {
    pub(super) token: String,
}

/// The body of a refusal. A body without this shape was not sent by the keeper.
#[derive(Deserialize)]
pub(super) struct Errors {
    pub(super) errors: Vec<String>,
}

/// The fields of `sys/health` that are used. Every keeper sends `sealed`, so a body without it is
/// not the keeper's.
#[derive(Deserialize)]
pub(super) struct Health {
    #[serde(rename = "sealed")]
    _sealed: bool,
    pub(super) cluster_id: Option<String>,
    #[serde(default)]
    version: serde_json::Value,
    /// Vault sends it from 1.19 on.
    #[serde(default)]
    enterprise: serde_json::Value,
}

impl Health {
    /// Returns whether the server is a community edition of Vault, which ignores the header
    /// `X-Vault-Namespace`. Before 1.19 only the version tells: that of an enterprise edition ends
    /// with `+ent`, and `OpenBao` starts with 2.
    pub(super) fn is_without_namespaces(&self) -> bool {
        match self.enterprise.as_bool() {
            Some(enterprise) => !enterprise,
            None => self
                .version
                .as_str()
                .is_some_and(|version| version.starts_with("1.") && !version.contains("+ent")),
        }
    }
}

/// `POST {mount}/decrypt/{key}` with several items.
#[derive(Serialize)]
pub(super) struct DecryptBatchBody<'a> {
    pub(super) batch_input: Vec<DecryptBody<'a>>,
}

/// The answer of decrypt for several items.
#[derive(Deserialize)]
pub(super) struct Batch {
    /// The id of this request in the server's audit log.
    #[serde(default, deserialize_with = "request_id::read")]
    pub(super) request_id: Option<String>,
    pub(super) data: BatchData,
}

/// The results of several items, in their order.
#[derive(Deserialize)]
pub(super) struct BatchData {
    pub(super) batch_results: Vec<BatchItem>,
}

/// The result of one item. If the item failed, `plaintext` is empty and `error` is not.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct BatchItem {
    #[serde(default)]
    pub(super) plaintext: String,
    #[serde(default)]
    pub(super) error: String,
    /// The `reference` of the item that this result belongs to. Empty if the server sends none.
    #[serde(default)]
    pub(super) reference: String,
}

/// The `data` of `sys/wrapping/lookup`.
#[derive(Deserialize)]
pub(super) struct WrappingData {
    pub(super) creation_path: String,
    /// The creation time in RFC 3339, if the server sends it. A value of another shape is accepted
    /// and ignored, because only the expiry report needs it.
    #[serde(default)]
    pub(super) creation_time: serde_json::Value,
}

/// The `data` of an unwrapped secret ID.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct SecretIdData {
    pub(super) secret_id: String,
    /// In seconds. 0 means that the secret ID never expires. A value of another shape is accepted
    /// and ignored, because rejecting the answer would lose the secret ID.
    #[serde(default)]
    #[zeroize(skip)]
    pub(super) secret_id_ttl: serde_json::Value,
}

/// An answer whose body is ignored.
#[derive(Deserialize)]
#[serde(from = "Option<serde::de::IgnoredAny>")]
pub(super) struct Nothing;

impl From<Option<serde::de::IgnoredAny>> for Nothing {
    fn from(_: Option<serde::de::IgnoredAny>) -> Self {
        Self
    }
}

impl<T: DeserializeOwned> Expected for Data<T> {}

impl Expected for Authenticated {}

impl Expected for UnwrappedToken {}

impl Expected for Nothing {}

/// A batch in which items failed has the status 400 if an item was invalid, or 500 if all items
/// failed inside the keeper.
impl Expected for Batch {
    fn is_answer_with(status: u16) -> bool {
        matches!(status, 400 | 500)
    }
}

/// The status tells the state of the node: standby, sealed, secondary.
impl Expected for Health {
    fn is_answer_with(status: u16) -> bool {
        matches!(status, 429 | 472 | 473 | 501 | 503)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_community_edition_of_vault_is_without_namespaces() {
        for (health, expected) in [
            (r#"{"sealed":false,"version":"1.19.5","enterprise":false}"#, true),
            (r#"{"sealed":false,"version":"1.19.5+ent","enterprise":true}"#, false),
            (r#"{"sealed":false,"version":"1.12.0"}"#, true),
            (r#"{"sealed":false,"version":"1.12.0+ent.hsm"}"#, false),
            (r#"{"sealed":false,"version":"2.7.2"}"#, false),
            (r#"{"sealed":false}"#, false),
            (r#"{"sealed":false,"version":7,"enterprise":"no"}"#, false),
        ] {
            let health: Health = serde_json::from_str(health).unwrap();
            assert_eq!(health.is_without_namespaces(), expected);
        }
    }
}
