//! Implements Status, Encrypt and Decrypt of KMS v2. Uses only ports.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{
    FutureExt as _,
    future::{Either, select},
};

use super::{
    envelope::{Annotations, AssociatedData, CIPHERTEXT_MAX, Ciphertext},
    error::{Code, KmsError},
    health::Standing,
    key::KekVersion,
    key_id::{KEY_ID_MAX, KeyId},
    proof::check_version,
    refresh::{MIN_INTERVAL, Refresh, Refresher},
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

/// How often a call checks for the first version that may write. With the pause between two checks,
/// a call waits for at most 2 s.
const FIRST_WRITER_CHECKS: usize = 200;
const FIRST_WRITER_PAUSE: Duration = Duration::from_millis(10);

/// The maximum time from the start of a read of the metadata to the end of a wrap that the read
/// confirms.
const READ_CONFIRMS_FOR: Duration = Duration::from_secs(1);

/// How often one call asks for a refresh. It may first get one that started too early, then one
/// that was cancelled, and then starts its own.
const MAX_REFRESHES: usize = 3;

/// KMS v2 for one key.
#[derive(Debug)]
pub struct KeyService {
    watch: Arc<KeyWatch>,
    refresher: Refresher,
    legacy_decrypt: bool,
}

impl KeyService {
    /// Makes the service over the key state of `watch`. With `legacy_decrypt` it also unwraps
    /// objects that other plugins wrote with the same key.
    #[must_use]
    pub fn new(watch: Arc<KeyWatch>, legacy_decrypt: bool) -> Self {
        Self { watch, refresher: Refresher::default(), legacy_decrypt }
    }

    fn ports(&self) -> &Ports {
        self.watch.ports()
    }

    /// Returns the version that `key_id` names. Refreshes the metadata first when the version is
    /// unknown here but may exist.
    async fn version_named(
        &self,
        key_id: &str,
        deadline: Monotonic,
    ) -> Result<KekVersion, KmsError> {
        let mut resolution = self.watch.resolve(key_id);
        if matches!(resolution, Resolution::Newer(_) | Resolution::Retired(_)) {
            let refreshed = self.refresh(deadline).await;
            resolution = self.watch.resolve(key_id);
            // After a failed refresh it is unknown whether the keeper has the version.
            if matches!(resolution, Resolution::Newer(_) | Resolution::Retired(_)) {
                refreshed?;
            }
        }
        match resolution {
            // The operator may have lowered the minimum version since the last read, so ask the
            // keeper.
            Resolution::Known(version) | Resolution::Archived(version) => Ok(version),
            Resolution::Retired(version) => Err(retired(version)),
            Resolution::Newer(version) => Err(version_unknown("key id names", version)),
            Resolution::Unknown => Err(KmsError::new(
                Code::KeyIdUnknown,
                "the key id does not name a version of this key",
                "if the key was moved or re-imported, set --key-lineage or --accept-key-id",
            )),
        }
    }

    /// Returns the version to wrap with. After a start, waits for the first read of the key and for
    /// the first proof, so that a restart loses no write.
    ///
    /// # Errors
    /// The errors of [`KeyWatch::writer`]. `starting` and `proof-pending` come at `deadline` or
    /// after 2 s.
    async fn writer(&self, deadline: Monotonic) -> Result<Writer, KmsError> {
        let clock = &self.ports().clock;
        for _ in 0..FIRST_WRITER_CHECKS {
            match self.watch.writer() {
                Err(error)
                    if matches!(error.code(), Code::Starting | Code::ProofPending)
                        && clock.now() < deadline =>
                {
                    clock.sleep(FIRST_WRITER_PAUSE).await;
                }
                decided => return decided,
            }
        }
        self.watch.writer()
    }

    /// Reads the key's metadata, unless a read that started within the last second has succeeded.
    ///
    /// # Errors
    /// The errors of [`Self::refresh_since`].
    async fn refresh(&self, deadline: Monotonic) -> Result<(), KmsError> {
        self.refresh_since(self.ports().clock.now().before(MIN_INTERVAL), deadline).await
    }

    /// Joins refreshes until one that started at `since` or later has read the metadata. A refresh
    /// that started before `since` does not count, so the call then joins another one.
    ///
    /// # Errors
    /// The reason why the metadata was not read by `deadline`.
    async fn refresh_since(&self, since: Monotonic, deadline: Monotonic) -> Result<(), KmsError> {
        let clock = &self.ports().clock;
        for _ in 0..MAX_REFRESHES {
            let now = clock.now();
            let watch = Arc::clone(&self.watch);
            let refresh =
                self.refresher.join(now, || async move { watch.read_metadata().await }.boxed());
            let left = clock.sleep(deadline.since(now));
            let last = match refresh {
                Refresh::Running(started, refresh) => {
                    first_of(refresh, left).await;
                    started >= since
                }
                Refresh::Ended => true,
                Refresh::Cancelled(wait) => {
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
        Err(self.watch.read_error())
    }

    async fn unwrap_ours(
        &self,
        sealed: &Sealed,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        let named = self.version_named(&sealed.key_id, deadline).await?;
        let written = self.ports().kek.version_of(&sealed.ciphertext)?;
        if named != written {
            if self.watch.is_accepted(&sealed.key_id) {
                return Err(KmsError::new(
                    Code::KeyIdUnknown,
                    format!(
                        "--accept-key-id gives version {named} for the key id, and the ciphertext is of \
                         version {written}"
                    ),
                    format!("give version {written} for this key id in --accept-key-id"),
                ));
            }
            return Err(KmsError::new(
                Code::CiphertextRejected,
                format!("the ciphertext is of key version {written}, but its key id names {named}"),
                "the stored object was changed in etcd; find the change, and undo it",
            ));
        }
        let associated_data = AssociatedData::binding(&sealed.key_id, &sealed.annotations);
        let opened = self.unwrap(&sealed.ciphertext, &associated_data, deadline).await;
        opened.map_err(|error| match error.code() {
            Code::VersionRetired => retired(named),
            _ => error,
        })
    }

    async fn unwrap_legacy(
        &self,
        ciphertext: &Ciphertext,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        if !self.legacy_decrypt {
            return Err(KmsError::new(
                Code::KeyIdUnknown,
                "this provider did not write the ciphertext",
                "if another plugin wrote it with the same key, set --legacy-decrypt=true",
            ));
        }
        let version = self.ports().kek.version_of(ciphertext)?;
        // Reject an invented version here, because a keeper may wait for a version that it does not
        // have.
        if self.watch.is_above_the_newest(version) {
            let refreshed = self.refresh(deadline).await;
            if self.watch.is_above_the_newest(version) {
                refreshed?;
                // A node of the keeper that lags leads to this error too, so the ciphertext may be good.
                return Err(version_unknown("ciphertext is of", version));
            }
        }
        let plaintext = self.unwrap(ciphertext, &AssociatedData::none(), deadline).await?;
        self.ports().telemetry.record(Event::LegacyRead);
        Ok(plaintext)
    }

    async fn unwrap(
        &self,
        ciphertext: &Ciphertext,
        associated_data: &AssociatedData,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        let sealed = Unwrap { ciphertext, associated_data };
        let plaintext = self.ports().kek.unwrap(sealed, deadline).await?;
        // Encrypt accepts only these sizes.
        if plaintext.is_empty() || plaintext.len() > CIPHERTEXT_MAX {
            return Err(KmsError::new(
                Code::KeeperAnswer,
                format!(
                    "the unwrapped plaintext has {} bytes, and KMS v2 allows 1 to {CIPHERTEXT_MAX}",
                    plaintext.len()
                ),
                "check that no proxy between this process and the keeper changes answers",
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
                let cause = "the key is healthy, but no key version writes";
                KmsError::new(Code::Internal, cause, "report this as a bug")
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
            // The version that Status announces is out of date. Refresh for the next Status and
            // Encrypt.
            drop(self.refresh(deadline).await);
        }
        let wrapped = wrapped?;
        check_version(writer.version, wrapped.version)?;
        check_version(writer.version, kek.version_of(&wrapped.ciphertext)?)?;
        // The version number can belong to another key by now: after the restore of a backup, a
        // rotation makes the same number again. So a read of the metadata that started at most 1 s
        // before the end of the wrap must confirm the version; otherwise the call fails. Encrypts
        // are rare, so the extra read costs little.
        let since = self.ports().clock.now().before(READ_CONFIRMS_FOR);
        if !self.watch.is_read_since(since) {
            self.refresh_since(since, deadline).await?;
        }
        self.watch.check_writer(&writer)?;
        let Wrapped { ciphertext, request_id, .. } = wrapped;
        Ok(Encrypted { ciphertext, key_id: writer.key_id, annotations, request_id })
    }

    async fn decrypt(&self, sealed: Sealed, deadline: Monotonic) -> Result<Plaintext, KmsError> {
        if sealed.key_id.is_empty() || sealed.key_id.len() > KEY_ID_MAX {
            return Err(KmsError::new(
                Code::InvalidRequest,
                format!(
                    "the key id has {} bytes, and KMS v2 allows 1 to {KEY_ID_MAX}",
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
                "the annotations are not the ones that this release writes",
                "if a newer release wrote the object, use that release; else find out what changed the object in etcd",
            ))
        } else {
            // The annotations may need much memory, so they do not wait for the keeper.
            let Sealed { ciphertext, annotations, .. } = sealed;
            drop(annotations);
            self.unwrap_legacy(&ciphertext, deadline).await
        }
    }
}

/// Waits until one of the two futures has ended.
async fn first_of(
    one: impl Future<Output = ()> + Unpin + Send,
    other: impl Future<Output = ()> + Unpin + Send,
) {
    match select(one, other).await {
        Either::Left(_) | Either::Right(_) => (),
    }
}

/// `what` says how the object names `version`.
fn version_unknown(what: &str, version: KekVersion) -> KmsError {
    KmsError::new(
        Code::KeyIdUnknown,
        format!("the {what} key version {version}, which the keeper does not have"),
        "try again; if this lasts, the key was rolled back: restore its newest versions",
    )
}

fn retired(version: KekVersion) -> KmsError {
    KmsError::new(
        Code::VersionRetired,
        format!("the keeper no longer unwraps with key version {version}"),
        "if the version is archived, lower min_decryption_version at the keeper",
    )
}

fn wrong_size(size: usize) -> KmsError {
    KmsError::new(
        Code::InvalidRequest,
        format!(
            "the plaintext has {size} bytes; it and its ciphertext must have 1 to {CIPHERTEXT_MAX}"
        ),
        "send a DEK seed of 32 bytes",
    )
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "concurrency_tests.rs"]
mod concurrency;
