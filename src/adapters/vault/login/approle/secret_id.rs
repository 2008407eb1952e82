//! Reads the secret ID from a file, or unwraps it with the wrapping token in that file. Keeps the
//! last valid credential while the file is missing.

use std::{
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{cache_text, wrapped};
use crate::{
    adapters::vault::{
        login::{
            credential_file::CredentialFile,
            port::{CredentialDigest, LoginFailure, LoginSecret},
            wrapping::Unwrapper,
        },
        vocabulary,
        wire::{Data, SecretIdData},
    },
    domain::{error::KmsError, secret::Secret, time::UnixTime},
    ports::file::PrivateFile,
};

/// An unwrapped secret ID.
struct Unwrapped {
    secret_id: Secret,
    /// When the secret ID expires, if the keeper says so.
    end: Option<UnixTime>,
}

/// The last unwrapped secret ID, and the digest of the token that wrapped it.
#[derive(Clone)]
struct LastUnwrapped {
    of: CredentialDigest,
    secret_id: Secret,
}

/// The source of the current secret ID.
pub(super) struct SecretIds {
    pub(super) file: CredentialFile,
    /// Set if the file holds a wrapping token.
    unwrapper: Option<Unwrapper>,
    /// Keeps the unwrapped secret ID over restarts of the process.
    cache: Option<Arc<dyn PrivateFile>>,
    /// The last unwrapped secret ID.
    held: Mutex<Option<LastUnwrapped>>,
}

impl SecretIds {
    pub(super) const fn new(
        file: CredentialFile,
        unwrapper: Option<Unwrapper>,
        cache: Option<Arc<dyn PrivateFile>>,
    ) -> Self {
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
            return Ok(vec![(of, LoginSecret::Plain(text))]);
        }
        let held = self.held().clone().map(|held| (held.of, LoginSecret::Plain(held.secret_id)));
        Ok(match held {
            Some(held) if held.0 == of => vec![held],
            held => std::iter::once((of, LoginSecret::Wrapped(text))).chain(held).collect(),
        })
    }

    /// Returns the secret ID that `token` wraps. Takes it from the cache if it is there, and
    /// otherwise uses up the token. Goes on if this future is dropped, so that the cache gets what the
    /// token wraps.
    ///
    /// # Errors
    /// Same as [`Unwrapper::unwrap`].
    pub(super) async fn unwrap(self: &Arc<Self>, token: &Secret) -> Result<Secret, LoginFailure> {
        let Some(unwrapper) = &self.unwrapper else { return Ok(token.clone()) };
        let (this, token) = (Arc::clone(self), token.clone());
        let unwrap = async move { this.unwrap_with_cache(&token).await };
        unwrapper.requests.unwrap_to_its_end(unwrap).await
    }

    async fn unwrap_with_cache(&self, token: &Secret) -> Result<Secret, LoginFailure> {
        let of = CredentialDigest::of(token);
        let Some(unwrapper) = &self.unwrapper else { return Ok(token.clone()) };
        let Unwrapped { secret_id, end } = match self.cached(of).await {
            Ok(Some(known)) => known,
            cached => {
                let problem = cached.err();
                let answer = unwrapper.unwrap(token, problem.as_deref()).await;
                let (wrapping, mut answer): (_, Data<SecretIdData>) = answer?;
                let end = wrapped::end(&wrapping, &answer.data);
                let secret_id = Secret::new(mem::take(&mut answer.data.secret_id));
                let fresh = Unwrapped { secret_id, end };
                self.keep(of, &fresh).await;
                fresh
            }
        };
        unwrapper.requests.expires(vocabulary::SECRET_ID, end);
        *self.held() = Some(LastUnwrapped { of, secret_id: secret_id.clone() });
        Ok(secret_id)
    }

    /// Returns the cached secret ID of the wrapping token with this digest, and when the secret ID
    /// expires.
    ///
    /// # Errors
    /// Returns why the cache cannot be read. Logs that too.
    async fn cached(&self, of: CredentialDigest) -> Result<Option<Unwrapped>, String> {
        let Some(cache) = &self.cache else { return Ok(None) };
        let text = cache.load().await.map_err(|problem| {
            let problem = format!("--approle-secret-id-cache: {} {problem}", cache.place());
            tracing::warn!("{problem}");
            problem
        })?;
        let read = text.and_then(|text| cache_text::read(&text, of));
        Ok(read.map(|(secret_id, end)| Unwrapped { secret_id, end }))
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
