//! Where the secret ID comes from: a file that holds it, or one that holds a wrapping token. What
//! was last good is kept while the file is away.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    cache_text,
    credential_text::read,
    wrapping::{Unwrapped, Unwrapper},
};
use crate::{
    adapters::vault::{
        credentials::{CredentialDigest, LoginFailure, LoginSecret},
        vocabulary::WRAPPING_TOKEN_USED,
    },
    domain::{error::KmsError, secret::Secret},
    ports::file::{PrivateFile, TextFile},
};

/// The longest credential, in bytes; Vault's own have 36, its tokens up to some hundred.
pub const CREDENTIAL_MAX: u64 = 4_096;

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
            Some(CredentialDigest::of(&text)) != self.last_good().as_ref().map(CredentialDigest::of)
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

/// A secret ID, and the digest of the token that wrapped it.
#[derive(Clone)]
struct LastUnwrapped {
    of: CredentialDigest,
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
    held: Mutex<Option<LastUnwrapped>>,
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

    /// What to log in with now: what the file says, and after it what an earlier wrapping token
    /// gave, which may still be good.
    ///
    /// # Errors
    /// [`Code::CredentialUnreadable`] when there is none and never was.
    pub(super) async fn login_secrets(
        &self,
    ) -> Result<Vec<(CredentialDigest, LoginSecret)>, KmsError> {
        let text = self.file.read().await?;
        let of = CredentialDigest::of(&text);
        if self.unwrapper.is_none() {
            return Ok(vec![(of, LoginSecret::SecretId(text))]);
        }
        let held = self.held().clone().map(|held| (held.of, LoginSecret::SecretId(held.secret_id)));
        Ok(match held {
            Some(held) if held.0 == of => vec![held],
            held => std::iter::once((of, LoginSecret::WrappingToken(text))).chain(held).collect(),
        })
    }

    /// The secret ID that `token` wraps. Uses the token up, unless the cache has it.
    ///
    /// # Errors
    /// As for [`Unwrapper::unwrap`].
    pub(super) async fn unwrap(&self, token: &Secret) -> Result<Secret, LoginFailure> {
        let of = CredentialDigest::of(token);
        let Some(unwrapper) = &self.unwrapper else { return Ok(token.clone()) };
        let Unwrapped { secret_id, end } = if let Some(unwrapped) = self.cached(of).await {
            unwrapped
        } else {
            let fresh = unwrapper.unwrap(token).await.inspect_err(alert)?;
            self.keep(of, &fresh).await;
            fresh
        };
        unwrapper.report_end(end);
        *self.held() = Some(LastUnwrapped { of, secret_id: secret_id.clone() });
        Ok(secret_id)
    }

    /// The secret ID that this wrapping token gave before a restart, and when it expires.
    async fn cached(&self, of: CredentialDigest) -> Option<Unwrapped> {
        let cache = self.cache.as_ref()?;
        match cache.load().await {
            Ok(text) => {
                let (secret_id, end) = cache_text::read(&text?, of)?;
                Some(Unwrapped { secret_id, end })
            }
            Err(problem) => {
                let place = cache.place();
                tracing::warn!("--approle-secret-id-cache: {place} {problem}");
                None
            }
        }
    }

    /// Keeps what the wrapping token of the digest `of` gave.
    async fn keep(&self, of: CredentialDigest, unwrapped: &Unwrapped) {
        let Some(cache) = &self.cache else { return };
        let text = cache_text::write(of, &unwrapped.secret_id, unwrapped.end);
        if let Err(problem) = cache.store(&text).await {
            let place = cache.place();
            tracing::warn!(
                "--approle-secret-id-cache: {place} {problem}; a restart needs a new wrapping token"
            );
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<LastUnwrapped>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SecretIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretIds").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Tells of a wrapping token that was used up: whoever used it has the secret ID.
fn alert(failure: &LoginFailure) {
    let (LoginFailure::Refused(error) | LoginFailure::Failed(error)) = failure;
    if error.code() == WRAPPING_TOKEN_USED {
        let (code, cause, remedy) = (error.code().as_str(), error.cause(), error.remedy());
        tracing::error!(code, cause, remedy, "ALERT: the secret ID may be stolen");
    }
}
