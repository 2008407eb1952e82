//! The three use cases of KMS v2, over ports alone.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{
    FutureExt as _,
    future::{Either, select},
};

use super::{
    envelope::{Annotations, AssociatedData, CIPHERTEXT_MAX},
    error::{Code, KmsError},
    health::Standing,
    key::KekVersion,
    key_id::{KEY_ID_MAX, KeyId},
    proof::check_version,
    refresh::{INTERVAL, Look, Refresh},
    rotation::{Resolution, Writer},
    secret::Plaintext,
    time::Monotonic,
    watch::KeyWatch,
};
use crate::ports::{
    Ports,
    kek::{Unwrap, Wrapped},
    kms::{Encrypted, KeyManagement, Sealed, StatusAnswer},
    telemetry::Event,
};

/// How often a call looks at most for the first version that may write, and the time between two
/// looks: 2 s in all.
const FIRST_WRITER_LOOKS: usize = 200;
const FIRST_WRITER_LOOK: Duration = Duration::from_millis(10);

/// How long metadata vouches for wraps, counted from when it was asked for.
const VOUCHES_FOR: Duration = Duration::from_secs(1);

/// How many looks one call takes part in at most: one that was under way already or was left by
/// all others, and then one of its own.
const LOOKS: usize = 3;

/// KMS v2 for one key.
#[derive(Debug)]
pub struct KeyService {
    watch: Arc<KeyWatch>,
    refresh: Refresh,
    legacy_decrypt: bool,
}

impl KeyService {
    /// The use cases over what `watch` knows. `legacy_decrypt` lets them read what other plugins
    /// wrapped with the same key.
    #[must_use]
    pub fn new(watch: Arc<KeyWatch>, legacy_decrypt: bool) -> Self {
        Self { watch, refresh: Refresh::default(), legacy_decrypt }
    }

    fn ports(&self) -> &Ports {
        self.watch.ports()
    }

    /// The version that `key_id` names, after one look at the keeper if it may be newer than
    /// what is known here.
    async fn version_named(
        &self,
        key_id: &str,
        deadline: Monotonic,
    ) -> Result<KekVersion, KmsError> {
        let mut resolution = self.watch.resolve(key_id);
        if matches!(resolution, Resolution::Newer(_) | Resolution::Retired(_)) {
            let looked = self.look(deadline).await;
            resolution = self.watch.resolve(key_id);
            // Where the look failed nobody can tell whether the keeper has the version.
            if matches!(resolution, Resolution::Newer(_) | Resolution::Retired(_)) {
                looked?;
            }
        }
        match resolution {
            // The minimum may have been lowered again since; the keeper decides.
            Resolution::Known(version) | Resolution::Archived(version) => Ok(version),
            Resolution::Retired(version) => Err(retired(version)),
            Resolution::Newer(version) => Err(KmsError::new(
                Code::KeyIdUnknown,
                format!("the key id is of key version {version}, which the keeper does not have"),
                "if the key was rolled back, restore it with its newest versions",
            )),
            Resolution::Unknown => Err(KmsError::new(
                Code::KeyIdUnknown,
                "the key id names no version of this key",
                "for a key that moved or was re-imported see --key-lineage and --accept-key-id",
            )),
        }
    }

    /// Returns the version to wrap with. A process that starts has none until its first read of the
    /// key and its first proof have ended; a call waits for them, so that a restart loses no write.
    ///
    /// # Errors
    /// Those of [`KeyWatch::writer`]; `starting` and `proof-pending` at `deadline` or after 2 s.
    async fn writer(&self, deadline: Monotonic) -> Result<Writer, KmsError> {
        let clock = &self.ports().clock;
        for _ in 0..FIRST_WRITER_LOOKS {
            match self.watch.writer() {
                Err(error)
                    if matches!(error.code(), Code::Starting | Code::ProofPending)
                        && clock.now() < deadline =>
                {
                    clock.sleep(FIRST_WRITER_LOOK).await;
                }
                decided => return decided,
            }
        }
        self.watch.writer()
    }

    /// Reads the key's metadata, unless a look within the last second has.
    ///
    /// # Errors
    /// Those of [`Self::look_since`].
    async fn look(&self, deadline: Monotonic) -> Result<(), KmsError> {
        self.look_since(self.ports().clock.now().before(INTERVAL), deadline).await
    }

    /// Takes part in looks at the keeper until metadata is known that was asked for at `since` or
    /// later. A look that began before `since` does not count, so another one follows it.
    ///
    /// # Errors
    /// Why the metadata could not be read by `deadline`.
    async fn look_since(&self, since: Monotonic, deadline: Monotonic) -> Result<(), KmsError> {
        let clock = &self.ports().clock;
        for _ in 0..LOOKS {
            let now = clock.now();
            let watch = Arc::clone(&self.watch);
            let look =
                self.refresh.join(now, || async move { watch.read_metadata().await }.boxed());
            let left = clock.sleep(deadline.since(now));
            let last = match look {
                Look::UnderWay(started, flight) => {
                    first_of(flight, left).await;
                    started >= since
                }
                Look::Ended => true,
                Look::Abandoned(wait) => {
                    first_of(clock.sleep(wait), left).await;
                    false
                }
            };
            if self.watch.is_read_since(since) {
                return Ok(());
            }
            if last || clock.now() >= deadline {
                break;
            }
        }
        Err(self.watch.unread())
    }

    async fn unwrap_ours(
        &self,
        sealed: &Sealed,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        let named = self.version_named(&sealed.key_id, deadline).await?;
        let written = self.ports().kek.version_of(&sealed.ciphertext)?;
        if named != written {
            return Err(KmsError::new(
                Code::CiphertextRejected,
                format!("a ciphertext of key version {written} under a key id of version {named}"),
                "the stored object was tampered with; restore it from a backup",
            ));
        }
        let associated_data = AssociatedData::binding(&sealed.key_id, &sealed.annotations);
        let opened = self.unwrap(sealed, &associated_data, deadline).await;
        opened.map_err(|error| match error.code() {
            Code::VersionRetired => retired(named),
            _ => error,
        })
    }

    async fn unwrap_legacy(
        &self,
        sealed: &Sealed,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        if !self.legacy_decrypt {
            return Err(KmsError::new(
                Code::KeyIdUnknown,
                "the ciphertext was not written by this provider",
                "set --legacy-decrypt=true to read what another plugin wrote under the same key",
            ));
        }
        let version = self.ports().kek.version_of(&sealed.ciphertext)?;
        // A made-up version would be waited for at the keeper.
        if self.watch.is_above_the_newest(version) {
            let looked = self.look(deadline).await;
            if self.watch.is_above_the_newest(version) {
                looked?;
                return Err(KmsError::new(
                    Code::CiphertextRejected,
                    format!(
                        "the ciphertext is of key version {version}, which the keeper does not have"
                    ),
                    "if the key was rolled back, restore it with its newest versions",
                ));
            }
        }
        let plaintext = self.unwrap(sealed, &AssociatedData::none(), deadline).await?;
        self.ports().telemetry.record(Event::LegacyRead);
        Ok(plaintext)
    }

    async fn unwrap(
        &self,
        sealed: &Sealed,
        associated_data: &AssociatedData,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        let sealed = Unwrap { ciphertext: &sealed.ciphertext, associated_data };
        let plaintext = self.ports().kek.unwrap(sealed, deadline).await?;
        // No caller can have had anything else wrapped.
        if plaintext.is_empty() || plaintext.len() > CIPHERTEXT_MAX {
            return Err(KmsError::new(
                Code::KeeperAnswer,
                format!(
                    "the keeper unwrapped to {} bytes; KMS v2 allows 1 to {CIPHERTEXT_MAX}",
                    plaintext.len()
                ),
                "check what stands between this process and the keeper",
            ));
        }
        Ok(plaintext)
    }
}

#[async_trait]
impl KeyManagement for KeyService {
    fn status(&self) -> Result<StatusAnswer, KmsError> {
        let (standing, writer) = self.watch.standing();
        let key_id = |writer: Option<Writer>| -> Result<KeyId, KmsError> {
            writer.map(|writer| writer.key_id).ok_or_else(|| {
                KmsError::new(Code::Internal, "healthy without a key version", "report this")
            })
        };
        match standing {
            Standing::Healthy => Ok(StatusAnswer { key_id: key_id(writer)?, ailment: None }),
            Standing::Ailing(error) => {
                Ok(StatusAnswer { key_id: key_id(writer)?, ailment: Some(error) })
            }
            Standing::Failing(error) => Err(error),
        }
    }

    async fn encrypt(
        &self,
        plaintext: Plaintext,
        deadline: Monotonic,
    ) -> Result<Encrypted, KmsError> {
        if plaintext.is_empty() || plaintext.len() > CIPHERTEXT_MAX {
            return Err(wrong_size(plaintext.len()));
        }
        let writer = self.writer(deadline).await?;
        let annotations = Annotations::ours();
        let associated_data = AssociatedData::binding(writer.key_id.as_str(), &annotations);
        let kek = &self.ports().kek;
        let wrapped = kek.wrap(writer.version, &plaintext, &associated_data, deadline).await;
        if wrapped.as_ref().is_err_and(|error| error.code() == Code::VersionRetired) {
            // What Status announces is out of date; the next Status and Encrypt know better.
            drop(self.look(deadline).await);
        }
        let wrapped = wrapped?;
        check_version(writer.version, wrapped.version)?;
        check_version(writer.version, kek.version_of(&wrapped.ciphertext)?)?;
        // A version number can come to stand for another key (a restored backup that is rotated).
        // Encrypts are rare, so metadata that was asked for after the wrap, or shortly before its
        // end, vouches for what was just wrapped. Without it the call fails.
        let since = self.ports().clock.now().before(VOUCHES_FOR);
        if !self.watch.is_read_since(since) {
            self.look_since(since, deadline).await?;
        }
        self.watch.vouch_for(&writer)?;
        let Wrapped { ciphertext, request_id, .. } = wrapped;
        Ok(Encrypted { ciphertext, key_id: writer.key_id, annotations, request_id })
    }

    async fn decrypt(&self, sealed: Sealed, deadline: Monotonic) -> Result<Plaintext, KmsError> {
        if sealed.key_id.is_empty() || sealed.key_id.len() > KEY_ID_MAX {
            return Err(KmsError::new(
                Code::InvalidRequest,
                format!(
                    "a key id of {} bytes; KMS v2 allows 1 to {KEY_ID_MAX}",
                    sealed.key_id.len()
                ),
                "send the key id as this provider returned it",
            ));
        }
        if sealed.annotations.are_ours() {
            self.unwrap_ours(&sealed, deadline).await
        } else if sealed.annotations.claim_to_be_ours() {
            Err(KmsError::new(
                Code::CiphertextRejected,
                "the annotations are not as this provider wrote them",
                "the stored object was tampered with, or a newer release wrote it",
            ))
        } else {
            self.unwrap_legacy(&sealed, deadline).await
        }
    }
}

/// Waits until either has ended.
async fn first_of(
    one: impl Future<Output = ()> + Unpin + Send,
    other: impl Future<Output = ()> + Unpin + Send,
) {
    match select(one, other).await {
        Either::Left(_) | Either::Right(_) => (),
    }
}

fn retired(version: KekVersion) -> KmsError {
    KmsError::new(
        Code::VersionRetired,
        format!("the keeper no longer unwraps with key version {version}"),
        "lower min_decryption_version if the version was only archived",
    )
}

fn wrong_size(size: usize) -> KmsError {
    KmsError::new(
        Code::InvalidRequest,
        format!("a plaintext of {size} bytes; it and its ciphertext have 1 to {CIPHERTEXT_MAX}"),
        "send a DEK seed of 32 bytes",
    )
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "concurrency_tests.rs"]
mod concurrency;
