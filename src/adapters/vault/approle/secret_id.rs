//! Where the secret ID comes from: a file that holds it, or one that holds a wrapping token. What
//! was last good is kept while the file is away.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use super::{credential_text::read, wrapping::Unwrapper};
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

/// A credential in a file. What was last good is kept while the file is away or holds none.
pub(super) struct FileCredential {
    file: Arc<dyn TextFile>,
    flag: &'static str,
    what: &'static str,
    last_good: Mutex<Option<Secret>>,
}

impl FileCredential {
    pub(super) const fn new(
        file: Arc<dyn TextFile>,
        flag: &'static str,
        what: &'static str,
    ) -> Self {
        Self { file, flag, what, last_good: Mutex::new(None) }
    }

    /// Reads it, or gives what was last good.
    ///
    /// # Errors
    /// As for [`read`], when nothing was ever good.
    pub(super) async fn read(&self) -> Result<Secret, KmsError> {
        let text = read(&*self.file, self.flag, self.what).await;
        let mut last_good = self.last_good();
        match (text, &*last_good) {
            (Ok(text), _) => {
                *last_good = Some(text.clone());
                Ok(text)
            }
            (Err(error), Some(text)) => {
                let (code, cause) = (error.code().as_str(), error.cause());
                tracing::warn!(code, cause, "the last good {} is used", self.what);
                Ok(text.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Whether it now says something else than when it was last read.
    pub(super) async fn differs(&self) -> bool {
        let text = read(&*self.file, self.flag, self.what).await.ok();
        text.is_some_and(|text| {
            Some(fingerprint(&text)) != self.last_good().as_ref().map(fingerprint)
        })
    }

    /// Waits until it may.
    pub(super) async fn changed(&self) {
        self.file.changed().await;
    }

    fn last_good(&self) -> MutexGuard<'_, Option<Secret>> {
        self.last_good.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FileCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileCredential").field("file", &self.file).finish_non_exhaustive()
    }
}

/// A secret ID, and the fingerprint of the token that wrapped it.
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
    /// What was unwrapped last.
    held: Mutex<Option<Held>>,
    /// The wrapping token that was found used up: it is told of once, and not asked for again.
    spent: Mutex<Option<(Fingerprint, KmsError)>>,
}

impl SecretIds {
    pub(super) fn new(
        file: Arc<dyn TextFile>,
        unwrapper: Option<Unwrapper>,
        cache: Option<Arc<dyn PrivateFile>>,
    ) -> Self {
        let what = if unwrapper.is_some() { "wrapping token" } else { "secret ID" };
        let file = FileCredential::new(file, "approle-secret-id-path", what);
        Self { file, unwrapper, cache, held: Mutex::new(None), spent: Mutex::new(None) }
    }

    /// The secret ID to log in with now.
    ///
    /// # Errors
    /// [`Code::CredentialUnreadable`] when there is none and never was; what unwrapping ended with.
    pub(super) async fn current(&self) -> Result<Secret, KmsError> {
        let text = self.file.read().await?;
        let Some(unwrapper) = &self.unwrapper else { return Ok(text) };
        let of = fingerprint(&text);
        let held = self.held().clone();
        if let Some(held) = held.as_ref().filter(|held| held.of == of) {
            return Ok(held.secret_id.clone());
        }
        match (self.unwrapped(unwrapper, &text, of).await, held) {
            (Ok(secret_id), _) => {
                *self.held() = Some(Held { of, secret_id: secret_id.clone() });
                Ok(secret_id)
            }
            // What an earlier token gave may be good still.
            (Err(error), Some(held)) => {
                let (code, cause) = (error.code().as_str(), error.cause());
                tracing::warn!(code, cause, "the last good secret ID is used");
                Ok(held.secret_id)
            }
            (Err(error), None) => Err(error),
        }
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
        if let Some((_, error)) = self.spent().clone().filter(|(spent, _)| *spent == of) {
            return Err(error);
        }
        let secret_id = unwrapper.unwrap(token).await.inspect_err(|error| {
            // Somebody may have the secret ID: not a line among many.
            if error.code() == Code::WrappingTokenUsed {
                let (code, cause, remedy) = (error.code().as_str(), error.cause(), error.remedy());
                tracing::error!(code, cause, remedy, "ALERT: the secret ID may be stolen");
                *self.spent() = Some((of, error.clone()));
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

    fn spent(&self) -> MutexGuard<'_, Option<(Fingerprint, KmsError)>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SecretIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretIds").field("file", &self.file).finish_non_exhaustive()
    }
}

pub(super) fn fingerprint(secret: &Secret) -> Fingerprint {
    Sha256::digest(secret.expose().as_bytes()).into()
}

fn printed(fingerprint: Fingerprint) -> String {
    STANDARD.encode(fingerprint)
}
