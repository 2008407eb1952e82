//! Inbound port: the calls of KMS v2, with types of the domain.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::domain::{
    envelope::{Annotations, Ciphertext},
    error::KmsError,
    key_id::KeyId,
    secret::{Plaintext, RequestId},
    time::Monotonic,
};

/// The answer of a successful `Status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusAnswer {
    /// The key id of the next wrap.
    pub key_id: KeyId,
    /// The outage during which writes go on. `None` when the key is healthy.
    pub ailment: Option<KmsError>,
}

/// The answer of `Encrypt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encrypted {
    /// The wrapped seed.
    pub ciphertext: Ciphertext,
    /// The id of the version that wrapped the seed.
    pub key_id: KeyId,
    /// The annotations that a `Decrypt` of the ciphertext must contain.
    pub annotations: Annotations,
    /// The keeper's identifier of the request, for the audit log. `None` when it is unknown.
    pub request_id: Option<RequestId>,
}

/// The request of `Decrypt`.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The ciphertext that `Encrypt` of this provider or of another plugin returned.
    pub ciphertext: Ciphertext,
    /// The key id that is stored with the ciphertext: 1 to 1024 bytes.
    pub key_id: String,
    /// The annotations that are stored with the ciphertext.
    pub annotations: Annotations,
}

/// The three calls of KMS v2.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait KeyManagement: Debug + Send + Sync + 'static {
    /// Reports whether wraps work, and the key id of the next wrap. Never waits.
    ///
    /// # Errors
    /// The reason why the API server must not write with this key now.
    fn status(&self) -> Result<StatusAnswer, KmsError>;

    /// Wraps a seed with the version that [`KeyManagement::status`] announces.
    ///
    /// # Errors
    /// `invalid-request` for a seed that is empty or whose ciphertext is longer than 1024 bytes,
    /// the reason why nothing may be written, and the errors of the keeper.
    async fn encrypt(
        &self,
        plaintext: Plaintext,
        deadline: Monotonic,
    ) -> Result<Encrypted, KmsError>;

    /// Unwraps a ciphertext of `encrypt`, or of another plugin if the operator allows that. Returns
    /// exactly the plaintext that was wrapped, or an error.
    ///
    /// # Errors
    /// `key-id-unknown`, `version-retired`, `ciphertext-rejected`, and the errors of the keeper.
    async fn decrypt(&self, sealed: Sealed, deadline: Monotonic) -> Result<Plaintext, KmsError>;
}
