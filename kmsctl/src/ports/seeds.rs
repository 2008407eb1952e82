//! Outbound port: unwraps the seeds of stored objects, by a plugin or by a keeper.

use std::fmt::Debug;

use async_trait::async_trait;
use vault_kube_kms::domain::{error::KmsError, secret::Plaintext};

use crate::domain::envelope::Envelope;

/// Unwraps seeds.
#[async_trait]
pub trait Seeds: Debug + Send + Sync {
    /// Unwraps the seed of `envelope`. Ends in bounded time.
    ///
    /// # Errors
    /// The error of the keeper. [`KmsError::code`] says whether it is about this seed, or an outage.
    async fn unwrap(&self, envelope: &Envelope<'_>) -> Result<Plaintext, KmsError>;
}
