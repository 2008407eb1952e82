//! Where the secret ID comes from: a file that holds it, or one that holds a wrapping token. What
//! was last good is kept while the file is away.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use super::wrapping::Unwrapper;
use crate::{
    domain::{
        error::{Code, KmsError},
        secret::Secret,
    },
    ports::file::{PrivateFile, TextFile},
};

/// The longest credential, in bytes; Vault's own have 36, its tokens up to some hundred.
pub const CREDENTIAL_MAX: u64 = 4_096;

/// Which credential a text is, without keeping it.
pub(super) type Fingerprint = [u8; 32];

/// A credential in a file, and what was last seen of it.
#[derive(Debug)]
pub(super) struct FileCredential {
    file: Arc<dyn TextFile>,
    flag: &'static str,
    what: &'static str,
    /// Of what was last read; `None` when it could not be.
    seen: Mutex<Option<Fingerprint>>,
}

impl FileCredential {
    pub(super) const fn new(
        file: Arc<dyn TextFile>,
        flag: &'static str,
        what: &'static str,
    ) -> Self {
        Self { file, flag, what, seen: Mutex::new(None) }
    }

    /// Reads it.
    ///
    /// # Errors
    /// As for [`read`].
    pub(super) async fn read(&self) -> Result<Secret, KmsError> {
        let text = read(&*self.file, self.flag, self.what).await;
        *self.seen() = text.as_ref().ok().map(fingerprint);
        text
    }

    /// Whether it now says something else than when it was last read.
    pub(super) async fn differs(&self) -> bool {
        let text = read(&*self.file, self.flag, self.what).await.ok();
        text.as_ref().is_some_and(|text| Some(fingerprint(text)) != *self.seen())
    }

    /// Waits until it may.
    pub(super) async fn changed(&self) {
        self.file.changed().await;
    }

    fn seen(&self) -> MutexGuard<'_, Option<Fingerprint>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A secret ID, and the fingerprint of the file's text that it goes back to.
#[derive(Clone)]
struct Held {
    of: Fingerprint,
    secret_id: Secret,
}

/// The secret ID of the moment.
pub(super) struct SecretIds {
    pub(super) file: FileCredential,
    /// The file holds a wrapping token, to be unwrapped by this.
    unwrapper: Option<Unwrapper>,
    /// Keeps what was unwrapped over restarts of the process.
    cache: Option<Arc<dyn PrivateFile>>,
    held: Mutex<Option<Held>>,
}

impl SecretIds {
    pub(super) fn new(
        file: Arc<dyn TextFile>,
        unwrapper: Option<Unwrapper>,
        cache: Option<Arc<dyn PrivateFile>>,
    ) -> Self {
        let what = if unwrapper.is_some() { "wrapping token" } else { "secret ID" };
        let file = FileCredential::new(file, "approle-secret-id-path", what);
        Self { file, unwrapper, cache, held: Mutex::new(None) }
    }

    /// The secret ID to log in with now.
    ///
    /// # Errors
    /// [`Code::CredentialUnreadable`] when there is none and never was; what unwrapping ended with.
    pub(super) async fn current(&self) -> Result<Secret, KmsError> {
        let read = self.file.read().await;
        let held = self.held().clone();
        let text = match (read, held.as_ref()) {
            (Ok(text), _) => text,
            (Err(error), Some(held)) => {
                let (code, cause) = (error.code().as_str(), error.cause());
                tracing::warn!(code, cause, "the last good secret ID is used");
                return Ok(held.secret_id.clone());
            }
            (Err(error), None) => return Err(error),
        };
        let of = fingerprint(&text);
        let secret_id = match (&self.unwrapper, held) {
            (_, Some(held)) if held.of == of => return Ok(held.secret_id),
            (None, _) => text,
            (Some(unwrapper), held) => match (self.unwrapped(unwrapper, &text, of).await, held) {
                (Ok(secret_id), _) => secret_id,
                // What an earlier token gave may be good still.
                (Err(_told), Some(held)) => return Ok(held.secret_id),
                (Err(error), None) => return Err(error),
            },
        };
        *self.held() = Some(Held { of, secret_id: secret_id.clone() });
        Ok(secret_id)
    }

    async fn unwrapped(
        &self,
        unwrapper: &Unwrapper,
        token: &Secret,
        of: Fingerprint,
    ) -> Result<Secret, KmsError> {
        if let Some(secret_id) = self.cached(of).await {
            return Ok(secret_id);
        }
        let secret_id = unwrapper.unwrap(token).await.inspect_err(|error| {
            // Somebody may have the secret ID: not a line among many.
            if error.code() == Code::WrappingTokenUsed {
                let (code, cause, remedy) = (error.code().as_str(), error.cause(), error.remedy());
                tracing::error!(code, cause, remedy, "ALERT: the secret ID may be stolen");
            }
        })?;
        self.keep(of, &secret_id).await;
        Ok(secret_id)
    }

    /// The secret ID that this wrapping token gave before a restart.
    async fn cached(&self, of: Fingerprint) -> Option<Secret> {
        let cache = self.cache.as_ref()?;
        match cache.load().await {
            Ok(text) => {
                let text = text?;
                let (told, secret_id) = text.expose().split_once('\n')?;
                (told == printed(of)).then(|| Secret::new(secret_id.trim().to_owned()))
            }
            Err(problem) => {
                let place = cache.place();
                tracing::warn!("--approle-secret-id-cache: {place} {problem}");
                None
            }
        }
    }

    async fn keep(&self, of: Fingerprint, secret_id: &Secret) {
        let Some(cache) = &self.cache else { return };
        let text = Secret::new(format!("{}\n{}\n", printed(of), secret_id.expose()));
        if let Err(problem) = cache.store(&text).await {
            let place = cache.place();
            tracing::warn!(
                "--approle-secret-id-cache: {place} {problem}; a restart needs a new wrapping token"
            );
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SecretIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretIds").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Reads a credential from its file, without the newline that editors and `echo` leave at its end.
///
/// # Errors
/// [`Code::CredentialUnreadable`], naming the flag and the remedy.
pub async fn read(file: &dyn TextFile, flag: &str, what: &str) -> Result<Secret, KmsError> {
    let unreadable = |why: &str, remedy: String| {
        let cause = format!("--{flag}: {} {why}", file.place());
        KmsError::new(Code::CredentialUnreadable, cause, remedy)
    };
    let text = file.read().await.map_err(|why| {
        unreadable(&why, format!("write the {what} there, readable by this process's uid"))
    })?;
    let credential = text.expose().trim();
    if credential.is_empty() || !credential.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(unreadable(
            &format!("holds no {what}"),
            format!("write the {what} alone into it, as one line"),
        ));
    }
    Ok(Secret::new(credential.to_owned()))
}

pub(super) fn fingerprint(secret: &Secret) -> Fingerprint {
    Sha256::digest(secret.expose().as_bytes()).into()
}

fn printed(fingerprint: Fingerprint) -> String {
    STANDARD.encode(fingerprint)
}
