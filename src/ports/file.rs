//! Outbound ports: text files of the operator, and private files of this process.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::domain::secret::{Plaintext, Secret};

/// A text file that an operator may replace at any moment: a secret ID, a role ID, a CA bundle.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait TextFile: Debug + Send + Sync + 'static {
    /// Returns the path of the file, for errors and logs.
    fn place(&self) -> String;

    /// Reads the file, with a limit on size and time. Waits a short time for a file that is being
    /// written, so that the result is complete. The bytes may have any encoding.
    ///
    /// # Errors
    /// The reason why the file cannot be read. The text is meant to follow the path.
    async fn read(&self) -> Result<Plaintext, String>;

    /// Waits until the content may differ from the last read: the file was replaced, written or
    /// removed, or the operator asked to read all files again. Safe to cancel.
    async fn changed(&self);
}

/// A file that only this process reads and writes.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait PrivateFile: Debug + Send + Sync + 'static {
    /// Returns the path of the file, for errors and logs.
    fn place(&self) -> String;

    /// Returns the stored text, or `None` when nothing is stored.
    ///
    /// # Errors
    /// The reason why the file cannot be read or must not be trusted.
    async fn load(&self) -> Result<Option<Secret>, String>;

    /// Replaces the stored text atomically.
    ///
    /// # Errors
    /// The reason why the file cannot be written.
    async fn store(&self, text: &Secret) -> Result<(), String>;
}
