//! The JSON that Vault and OpenBao speak. Unknown fields are ignored: each server adds its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::client::Expected;

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
    /// Comes back with the item's result. Set in batches alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) reference: String,
}

/// `POST auth/{mount}/login`.
#[derive(Serialize)]
pub(super) struct LoginBody<'a> {
    pub(super) role_id: &'a str,
    /// Left out where the role needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret_id: Option<&'a str>,
}

/// `POST sys/wrapping/lookup`.
#[derive(Serialize)]
pub(super) struct WrappedBody<'a> {
    pub(super) token: &'a str,
}

/// An answer's `data`.
#[derive(Deserialize)]
pub(super) struct Data<T> {
    /// As it stands in the server's audit log.
    pub(super) request_id: Option<String>,
    pub(super) data: T,
}

/// What encrypt returns. Servers before Vault 1.6 do not name the version beside the ciphertext.
#[derive(Deserialize)]
pub(super) struct EncryptData {
    pub(super) ciphertext: String,
    pub(super) key_version: Option<u32>,
}

/// What decrypt returns.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct DecryptData {
    pub(super) plaintext: String,
}

/// What a key read returns.
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
    /// Absent for HMAC keys; values are numbers only for symmetric keys.
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

/// An answer's `auth`.
#[derive(Deserialize)]
pub(super) struct Authenticated {
    pub(super) auth: Auth,
}

/// What login and renewal return.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct Auth {
    pub(super) client_token: String,
    /// Seconds; 0 never expires.
    pub(super) lease_duration: u64,
    #[serde(default)]
    pub(super) renewable: bool,
    #[serde(default)]
    pub(super) num_uses: i64,
}

/// The body of a refusal. No other body is the keeper's word.
#[derive(Deserialize)]
pub(super) struct Errors {
    pub(super) errors: Vec<String>,
}

/// What `sys/health` tells, as far as it matters. Every keeper sends `sealed`.
#[derive(Deserialize)]
pub(super) struct Health {
    #[serde(rename = "sealed")]
    _sealed: bool,
    pub(super) cluster_id: Option<String>,
}

/// `POST {mount}/decrypt/{key}` with several items.
#[derive(Serialize)]
pub(super) struct DecryptBatchBody<'a> {
    pub(super) batch_input: Vec<DecryptBody<'a>>,
}

/// What decrypt returns for several items.
#[derive(Deserialize)]
pub(super) struct Batch {
    /// As it stands in the server's audit log.
    pub(super) request_id: Option<String>,
    pub(super) data: BatchData,
}

/// The results of several items, in their order.
#[derive(Deserialize)]
pub(super) struct BatchData {
    pub(super) batch_results: Vec<BatchItem>,
}

/// The result of one item. A failed one has an empty plaintext beside its error.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct BatchItem {
    #[serde(default)]
    pub(super) plaintext: String,
    #[serde(default)]
    pub(super) error: String,
    /// The `reference` of the item that this is the result of. Empty where the server sends none.
    #[serde(default)]
    pub(super) reference: String,
}

/// What `sys/wrapping/lookup` tells.
#[derive(Deserialize)]
pub(super) struct WrappingData {
    pub(super) creation_path: String,
    /// RFC 3339, where it is told. Of any shape, since nothing hangs on it.
    #[serde(default)]
    pub(super) creation_time: serde_json::Value,
}

/// What a wrapped secret ID unwraps to.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct SecretIdData {
    pub(super) secret_id: String,
    /// Seconds; 0 never expires. Of any shape, since an answer that is refused loses the secret ID.
    #[serde(default)]
    #[zeroize(skip)]
    pub(super) secret_id_ttl: serde_json::Value,
}

/// An answer that says nothing beside its success.
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

impl Expected for Nothing {}

/// The status of a batch of which items failed: 400 where one of them was the caller's fault, 500
/// where all of them failed inside the keeper.
impl Expected for Batch {
    fn is_answer_with(status: u16) -> bool {
        matches!(status, 400 | 500)
    }
}

/// The status says how the node is: a standby, sealed, a secondary.
impl Expected for Health {
    fn is_answer_with(status: u16) -> bool {
        matches!(status, 429 | 472 | 473 | 501 | 503)
    }
}
