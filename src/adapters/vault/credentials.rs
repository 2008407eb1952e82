//! How this process proves to the keeper who it is.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use crate::domain::{error::KmsError, secret::Secret};

/// A token and what may be done with it.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The token itself.
    pub token: Secret,
    /// How long it is good for, counted from when the request was sent; `None` is for ever.
    pub ttl: Option<Duration>,
    /// Whether [`Credentials::renew`] may lengthen it.
    pub renewable: bool,
}

/// Which material a login is made with, without the texts: a SHA-256 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialDigest([u8; 32]);

impl CredentialDigest {
    /// The digest of no material: nothing can be read.
    pub const NONE: Self = Self([0; 32]);

    /// The digest of a secret text.
    #[must_use]
    pub fn of(secret: &Secret) -> Self {
        Self(Sha256::digest(secret.expose().as_bytes()).into())
    }

    /// The digest of what this one stands for together with `text`.
    #[must_use]
    pub fn with(self, text: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(text.as_bytes());
        Self(hash.finalize().into())
    }

    /// The bytes of the hash.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The secret half of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginSecret {
    /// None: the role ID is enough.
    NotNeeded,
    /// A secret ID.
    SecretId(Secret),
    /// A token that wraps a secret ID.
    WrappingToken(Secret),
}

/// What one login is made with.
#[derive(Clone, Debug)]
pub struct Material {
    /// Which one it is.
    pub digest: CredentialDigest,
    /// The role ID.
    pub role_id: Secret,
    /// The rest.
    pub secret: LoginSecret,
}

/// Why a login gave no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginFailure {
    /// The keeper looked at the material and refused it: sending it again can lock the role.
    Refused(KmsError),
    /// Anything else. The material may be good.
    Failed(KmsError),
}

/// A way to get a token.
///
/// Every method that asks the keeper may wait for as long as its implementation bounds a request.
#[async_trait]
pub trait Credentials: Debug + Send + Sync + 'static {
    /// The servers that are asked, as errors name them.
    fn keeper(&self) -> String;

    /// Reads what a login can be made with now, the preferred material first. Never empty.
    ///
    /// # Errors
    /// `credential-unreadable` when a file is at fault.
    async fn materials(&self) -> Result<Vec<Material>, KmsError>;

    /// Gets a new token. Not safe to repeat blindly: it may use up a credential, and refusals
    /// may lock it. When this future is dropped, a token that is given later is revoked.
    ///
    /// # Errors
    /// [`LoginFailure::Refused`] when the keeper refuses the material itself, and
    /// [`LoginFailure::Failed`] for anything else.
    async fn login(&self, material: &Material) -> Result<Lease, LoginFailure>;

    /// Lengthens the life of `token`. Safe to repeat, and to cancel.
    ///
    /// # Errors
    /// `permission-denied` or `login-refused` when it cannot be renewed, and those of an outage.
    async fn renew(&self, token: &Secret) -> Result<Lease, KmsError>;

    /// Waits until [`Credentials::materials`] would give other material than it last did, such as
    /// a new secret ID in its file. Safe to cancel; never resolves where material cannot change.
    async fn changed(&self);

    /// Ends `token`. Best effort: the caller ignores failures.
    ///
    /// # Errors
    /// Whatever the keeper answered.
    async fn revoke(&self, token: &Secret) -> Result<(), KmsError>;
}
