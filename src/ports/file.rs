//! Outbound: files that an operator may replace at any moment, and one that is ours alone.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::domain::secret::{Plaintext, Secret};

/// A text file that an operator may replace at any moment: a secret ID, a role ID, a CA bundle.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait TextFile: Debug + Send + Sync + 'static {
    /// Where it is, for errors and logs.
    fn place(&self) -> String;

    /// Reads it, bounded in size and in time. Waits a moment for one that is being written, so
    /// that no half of it is seen. The bytes may be of any encoding.
    ///
    /// # Errors
    /// Why it cannot be read, in words that follow its place.
    async fn read(&self) -> Result<Plaintext, String>;

    /// Waits until it may say something else than when it was last read: it was replaced, written,
    /// or went away, or files are to be read again now. Safe to cancel.
    async fn changed(&self);
}

/// A file of this process's own, which nobody else may read.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait PrivateFile: Debug + Send + Sync + 'static {
    /// Where it is, for errors and logs.
    fn place(&self) -> String;

    /// What was last stored; `None` when nothing was.
    ///
    /// # Errors
    /// Why it cannot be read, or must not be trusted, in words.
    async fn load(&self) -> Result<Option<Secret>, String>;

    /// Replaces what is stored, in one step.
    ///
    /// # Errors
    /// Why it cannot be written, in words.
    async fn store(&self, text: &Secret) -> Result<(), String>;
}
