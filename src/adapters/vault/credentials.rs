//! The port through which a session logs in to the keeper and renews its token.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use crate::domain::{error::KmsError, secret::Secret};

/// A token, its lifetime, and whether it can be renewed.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The token itself.
    pub token: Secret,
    /// How long the token is valid, counted from the moment when the request was sent. `None` means
    /// that it never expires.
    pub ttl: Option<Duration>,
    /// Whether [`Credentials::renew`] can extend it.
    pub renewable: bool,
}

/// Identifies the material of a login without its secret texts: a SHA-256 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialDigest([u8; 32]);

impl CredentialDigest {
    /// Stands for missing material: no credential can be read.
    pub const NONE: Self = Self([0; 32]);

    /// Returns the digest of a secret text.
    #[must_use]
    pub fn of(secret: &Secret) -> Self {
        Self(Sha256::digest(secret.expose().as_bytes()).into())
    }

    /// Returns the digest of this digest followed by `text`.
    #[must_use]
    pub fn with(self, text: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(text.as_bytes());
        Self(hash.finalize().into())
    }

    /// Returns the bytes of the hash.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The secret part of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginSecret {
    /// The role ID alone is enough.
    NotNeeded,
    /// A secret ID.
    SecretId(Secret),
    /// A token that wraps a secret ID.
    WrappingToken(Secret),
}

/// The credentials for one login.
#[derive(Clone, Debug)]
pub struct Material {
    /// Identifies this material.
    pub digest: CredentialDigest,
    /// The role ID.
    pub role_id: Secret,
    /// The secret ID, or the token that wraps it.
    pub secret: LoginSecret,
}

/// Why a login gave no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginFailure {
    /// The keeper checked the material and refused it. Sending the same material again can lock the
    /// role.
    Refused(KmsError),
    /// The login failed for another reason. The material may be valid.
    Failed(KmsError),
}

/// Obtains, renews and revokes tokens.
///
/// A method that sends a request may wait for as long as the implementation allows for one request.
#[async_trait]
pub trait Credentials: Debug + Send + Sync + 'static {
    /// Returns the name of the servers for error messages.
    fn keeper(&self) -> String;

    /// Reads the materials for a login, the preferred one first. The list is never empty.
    ///
    /// # Errors
    /// Returns `credential-unreadable` if a file cannot be read or holds no usable credential.
    async fn materials(&self) -> Result<Vec<Material>, KmsError>;

    /// Logs in and returns a new token. Do not repeat a login without checking why it failed: a
    /// login may use up a credential, and repeated refusals may lock the role. If this future is
    /// dropped and the keeper grants a token later, that token is revoked.
    ///
    /// # Errors
    /// Returns [`LoginFailure::Refused`] if the keeper refuses the material itself, and
    /// [`LoginFailure::Failed`] for any other reason.
    async fn login(&self, material: &Material) -> Result<Lease, LoginFailure>;

    /// Extends the lifetime of `token`. Safe to repeat and to cancel.
    ///
    /// # Errors
    /// Returns `permission-denied` or `login-refused` if the token cannot be renewed, and the codes
    /// of an outage.
    async fn renew(&self, token: &Secret) -> Result<Lease, KmsError>;

    /// Waits until [`Credentials::materials`] would return other material than the last time, such
    /// as a new secret ID in its file. Safe to cancel. Never resolves if the material cannot
    /// change.
    async fn changed(&self);

    /// Revokes `token`. The caller ignores failures.
    ///
    /// # Errors
    /// Returns the reason why the token was not revoked.
    async fn revoke(&self, token: &Secret) -> Result<(), KmsError>;
}
