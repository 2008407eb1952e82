//! Reads the secret ID from a file, or unwraps it with the wrapping token in that file. Keeps the
//! last valid credential while the file is missing.

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

/// The longest accepted credential, in bytes. Vault's generated IDs have 36 bytes, and its tokens a
/// few hundred.
pub const CREDENTIAL_MAX: u64 = 4_096;

/// A credential in a file. Keeps the last valid credential while the file is missing or holds none.
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

    /// Reads the credential. Returns the last valid one if that fails.
    ///
    /// # Errors
    /// Returns the error of [`read`] if no read has ever succeeded.
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
                tracing::warn!(code, cause, "the last valid {} is used", self.what);
                Ok(text.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Returns whether the file now holds another valid credential than at the last read.
    pub(super) async fn differs(&self) -> bool {
        let text = read(&*self.file, self.flag, self.what).await.ok();
        text.is_some_and(|text| {
            Some(CredentialDigest::of(&text)) != self.last_good().as_ref().map(CredentialDigest::of)
        })
    }

    /// Waits until the file may have changed.
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

/// The last unwrapped secret ID, and the digest of the token that wrapped it.
#[derive(Clone)]
struct LastUnwrapped {
    of: CredentialDigest,
    secret_id: Secret,
}

/// The source of the current secret ID.
pub(super) struct SecretIds {
    pub(super) file: FileCredential,
    /// Set if the file holds a wrapping token.
    unwrapper: Option<Unwrapper>,
    /// Keeps the unwrapped secret ID over restarts of the process.
    cache: Option<Arc<dyn PrivateFile>>,
    /// The last unwrapped secret ID.
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

    /// Returns the secrets for a login: first the one in the file, then the secret ID of an earlier
    /// wrapping token, which may still be valid.
    ///
    /// # Errors
    /// Returns [`Code::CredentialUnreadable`](crate::domain::error::Code::CredentialUnreadable) if
    /// no read has ever succeeded.
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

    /// Returns the secret ID that `token` wraps. Takes it from the cache if it is there, and
    /// otherwise uses up the token.
    ///
    /// # Errors
    /// Same as [`Unwrapper::unwrap`].
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

    /// Returns the cached secret ID of the wrapping token with this digest, and when the secret ID
    /// expires.
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

    /// Stores the secret ID of the wrapping token with the digest `of` in the cache.
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

/// Logs an alert for a wrapping token that was used before: the user of the token has the secret
/// ID.
fn alert(failure: &LoginFailure) {
    let (LoginFailure::Refused(error) | LoginFailure::Failed(error)) = failure;
    if error.code() == WRAPPING_TOKEN_USED {
        let (code, cause, remedy) = (error.code().as_str(), error.cause(), error.remedy());
        tracing::error!(code, cause, remedy, "ALERT: the secret ID may be stolen");
    }
}
