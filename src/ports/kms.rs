//! Inbound: KMS v2 in the domain's words.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::domain::{
    envelope::{Annotations, Ciphertext},
    error::KmsError,
    key_id::KeyId,
    secret::{Plaintext, RequestId},
    time::Monotonic,
};

/// What `Status` answers when it does not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusAnswer {
    /// The id that the next wrap will carry.
    pub key_id: KeyId,
    /// `None` is healthy; else the reason, for an outage that may keep writing.
    pub ailment: Option<KmsError>,
}

/// What `Encrypt` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encrypted {
    /// The wrapped seed.
    pub ciphertext: Ciphertext,
    /// The id of the version that wrapped it.
    pub key_id: KeyId,
    /// What must come back with it.
    pub annotations: Annotations,
    /// The keeper's identifier of the request, for the audit log.
    pub request_id: Option<RequestId>,
}

/// What `Decrypt` is asked.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// As `Encrypt` answered it, or as another plugin did.
    pub ciphertext: Ciphertext,
    /// The id stored with it: 1 to 1024 bytes.
    pub key_id: String,
    /// The annotations stored with it.
    pub annotations: Annotations,
}

/// The three calls of KMS v2.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait KeyManagement: Debug + Send + Sync + 'static {
    /// Tells whether wraps work and under which id. Never waits.
    ///
    /// # Errors
    /// Why the API server must not write with this key now.
    fn status(&self) -> Result<StatusAnswer, KmsError>;

    /// Wraps a seed with the version that [`KeyManagement::status`] announces.
    ///
    /// # Errors
    /// `invalid-request` for a seed that is empty or whose ciphertext would pass 1024 bytes, the
    /// reason why nothing may be written, and whatever the keeper answered.
    async fn encrypt(
        &self,
        plaintext: Plaintext,
        deadline: Monotonic,
    ) -> Result<Encrypted, KmsError>;

    /// Unwraps what `encrypt`, or another plugin where that is allowed, has wrapped.
    ///
    /// # Errors
    /// `key-id-unknown`, `version-retired`, `ciphertext-rejected`, and whatever the keeper
    /// answered. Never another plaintext than the one that was wrapped.
    async fn decrypt(&self, sealed: Sealed, deadline: Monotonic) -> Result<Plaintext, KmsError>;
}
