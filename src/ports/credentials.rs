//! Outbound: how this process proves to the keeper who it is.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

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

/// A way to get a token.
///
/// Every method may wait for a network for as long as its implementation bounds a request.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Credentials: Debug + Send + Sync + 'static {
    /// Gets a new token. Not safe to repeat blindly: it may use up a credential, and refusals
    /// may lock it.
    ///
    /// # Errors
    /// `credential-unreadable` when a file is at fault, `login-refused` when the keeper says no,
    /// and the codes of an outage.
    async fn login(&self) -> Result<Lease, KmsError>;

    /// Lengthens the life of `token`. Safe to repeat.
    ///
    /// # Errors
    /// `permission-denied` or `login-refused` when it cannot be renewed, and those of an outage.
    async fn renew(&self, token: &Secret) -> Result<Lease, KmsError>;

    /// Waits until a login would use other material than the last one did, such as a new secret
    /// ID in its file. Safe to cancel; never resolves where material cannot change.
    async fn changed(&self);

    /// Ends `token`. Best effort: the caller ignores failures.
    ///
    /// # Errors
    /// Whatever the keeper answered.
    async fn revoke(&self, token: &Secret) -> Result<(), KmsError>;
}
