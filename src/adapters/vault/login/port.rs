//! The port through which a session logs in to the keeper, and keeps its token.

use std::{fmt::Debug, future::pending, time::Duration};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use crate::domain::{error::KmsError, secret::Secret};

/// How long a refused credential is not sent again. A server locks a role after five refusals if fewer
/// than 15 minutes lie between each two of them. With an hour, four nodes that share a role always
/// leave such a gap of 15 minutes, whenever each of them started.
pub(in crate::adapters::vault) const REFUSED_FOR: Duration = Duration::from_hours(1);

/// A token, its lifetime, and what the session may do with it.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The token itself.
    pub token: Secret,
    /// How long the token is valid, counted from the moment when the request was sent. `None` means
    /// that it never expires.
    pub ttl: Option<Duration>,
    /// Whether [`Tokens::renew`] can extend it.
    pub renewable: bool,
    /// Whether the token belongs to this session, because a login of this session created it. The
    /// session revokes only its own token.
    pub own: bool,
    /// Whether the session logs in again as soon as the credential changes. Otherwise the token
    /// outlives the credential.
    pub ends_with_credential: bool,
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
        Self::of_bytes(secret.expose().as_bytes())
    }

    /// Returns the digest of bytes, such as a certificate.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
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
    /// The login sends no secret: the role ID or the client certificate is enough.
    NotNeeded,
    /// A secret that the login sends, such as a secret ID, a JWT or a token.
    Plain(Secret),
    /// A token that wraps the secret.
    Wrapped(Secret),
}

impl LoginSecret {
    /// Returns the text in clear. It is empty if no secret is needed.
    #[must_use]
    pub fn expose(&self) -> &str {
        match self {
            Self::NotNeeded => "",
            Self::Plain(secret) | Self::Wrapped(secret) => secret.expose(),
        }
    }
}

/// The credentials for one login.
#[derive(Clone, Debug)]
pub struct Material {
    /// Identifies this material.
    pub digest: CredentialDigest,
    /// The role ID of an `AppRole`, or the name of a role. Empty if the login names no role.
    pub role: Secret,
    /// The secret part.
    pub secret: LoginSecret,
}

/// Why a login gave no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginFailure {
    /// The keeper checked the material and refused it. Sending the same material again can lock the
    /// role, or cannot succeed.
    Refused(KmsError),
    /// The login failed for another reason. The material may be valid.
    Failed(KmsError),
}

impl LoginFailure {
    /// Returns the same failure with the error that `change` makes of its error.
    #[must_use]
    pub fn map(self, change: impl FnOnce(KmsError) -> KmsError) -> Self {
        match self {
            Self::Refused(error) => Self::Refused(change(error)),
            Self::Failed(error) => Self::Failed(change(error)),
        }
    }
}

/// A method of logging in: credentials go in, and a lease comes out.
///
/// A method that sends a request may wait for as long as `--login-timeout` allows.
#[async_trait]
pub trait LoginMethod: Debug + Send + Sync + 'static {
    /// Reads the materials for a login, the preferred one first. The list is never empty.
    ///
    /// # Errors
    /// Returns `credential-unreadable` if a file cannot be read or holds no usable credential.
    async fn materials(&self) -> Result<Vec<Material>, KmsError>;

    /// Logs in and returns a token. Do not repeat a login without checking why it failed: a login
    /// may use up a credential, and repeated refusals may lock the role. If this future is dropped
    /// and the keeper grants a token later, that token is revoked.
    ///
    /// # Errors
    /// Returns [`LoginFailure::Refused`] if the keeper refuses the material itself and the same
    /// material must not be sent again for an hour, and [`LoginFailure::Failed`] for any other
    /// reason. The material is then sent again within a minute.
    async fn login(&self, material: &Material) -> Result<Lease, LoginFailure>;

    /// Waits until [`LoginMethod::materials`] would return other material than the last time, such
    /// as a new secret ID in its file. Safe to cancel. Never resolves if the material cannot
    /// change.
    async fn changed(&self);

    /// Does what the method needs beside logins, such as receiving certificates. Never returns. Run it
    /// once.
    async fn run(&self) {
        pending::<()>().await;
    }
}

/// Keeps the token of a session.
#[async_trait]
pub trait Tokens: Debug + Send + Sync + 'static {
    /// Returns the name of the servers for error messages.
    fn keeper(&self) -> String;

    /// Extends the lifetime of `token`. Safe to repeat and to cancel.
    ///
    /// # Errors
    /// Returns `permission-denied` or `login-refused` if the token cannot be renewed, and the codes
    /// of an outage.
    async fn renew(&self, token: &Secret) -> Result<Lease, KmsError>;

    /// Revokes `token`. The caller ignores failures.
    ///
    /// # Errors
    /// Returns the reason why the token was not revoked.
    async fn revoke(&self, token: &Secret) -> Result<(), KmsError>;

    /// Waits until the logins and unwraps that run have ended. The token of a login whose result
    /// nobody waits for is then revoked, and an unwrapped credential is in its cache.
    async fn settled(&self) {}
}
