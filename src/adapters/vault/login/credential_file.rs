//! A credential in a file that operators or other programs write.

use std::{
    fmt,
    future::pending,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::select_all;

use super::{
    credential_text::{CREDENTIAL_MAX, read},
    port::CredentialDigest,
};
use crate::{
    domain::{error::KmsError, secret::Secret},
    ports::{
        file::{PrivateFile, TextFile},
        workload_identity::{AgentSettings, WorkloadIdentity},
    },
};

/// A credential file of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialPath {
    /// The flag that names the file, without dashes.
    pub flag: &'static str,
    /// What the file holds, such as `secret ID`.
    pub what: &'static str,
    /// The path of the file.
    pub path: PathBuf,
    /// Whether the content is secret, so that only its owner should read it.
    pub is_secret: bool,
    /// The form of the content.
    pub form: CredentialForm,
}

/// The form in which a file holds its credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialForm {
    /// The credential alone. The text is the end of the remedy for other content, and may be empty.
    Text(&'static str),
    /// The credential alone, or a JSON object with the credential in this field.
    TextOrJson(&'static str),
    /// A JWT in the compact form.
    Jwt,
}

/// Opens the files of a login, or the agent that gives the identity of a login.
pub struct LoginFiles<'a> {
    /// Opens a file that operators or other programs write. Reads at most the given number of
    /// bytes.
    pub watched: &'a dyn Fn(&Path, u64) -> Arc<dyn TextFile>,
    /// Opens a file that only this program writes.
    pub private: &'a dyn Fn(&Path) -> Arc<dyn PrivateFile>,
    /// Opens an agent. Connects to nothing.
    pub identity: &'a dyn Fn(&AgentSettings) -> Arc<dyn WorkloadIdentity>,
    /// Whether the login may use up a wrapping token. Only the provider does, because a token works
    /// once.
    pub unwraps: bool,
}

impl fmt::Debug for LoginFiles<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginFiles").finish_non_exhaustive()
    }
}

/// A credential in a file. Keeps the last valid credential while the file is missing or holds none.
pub(super) struct CredentialFile {
    file: Arc<dyn TextFile>,
    of: CredentialPath,
    last_good: Mutex<Option<Secret>>,
}

impl CredentialFile {
    pub(super) fn open(of: CredentialPath, files: &LoginFiles<'_>) -> Self {
        let file = (files.watched)(&of.path, CREDENTIAL_MAX);
        Self { file, of, last_good: Mutex::new(None) }
    }

    /// Reads the credential. Returns the last valid one if that fails.
    ///
    /// # Errors
    /// Returns the error of [`read`] if no read has ever succeeded.
    pub(super) async fn read(&self) -> Result<Secret, KmsError> {
        let text = read(&*self.file, &self.of).await;
        let mut last_good = self.last_good();
        match (text, &*last_good) {
            (Ok(text), _) => {
                *last_good = Some(text.clone());
                Ok(text)
            }
            (Err(error), Some(text)) => {
                let (code, cause) = (error.code().as_str(), error.cause());
                tracing::warn!(code, cause, "the last valid {} is used", self.of.what);
                Ok(text.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Returns whether the file now holds another valid credential than at the last read.
    async fn differs(&self) -> bool {
        let text = read(&*self.file, &self.of).await.ok();
        text.is_some_and(|text| {
            Some(CredentialDigest::of(&text)) != self.last_good().as_ref().map(CredentialDigest::of)
        })
    }

    /// Returns the path of the file.
    pub(super) fn place(&self) -> String {
        self.file.place()
    }

    fn last_good(&self) -> MutexGuard<'_, Option<Secret>> {
        self.last_good.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CredentialFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialFile").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Waits until one of `files` holds another valid credential than at its last read. Never resolves
/// without files. Safe to cancel.
pub(super) async fn any_changed(files: &[&CredentialFile]) {
    loop {
        for file in files {
            if file.differs().await {
                return;
            }
        }
        if files.is_empty() {
            return pending().await;
        }
        select_all(files.iter().map(|file| file.file.changed())).await;
    }
}
