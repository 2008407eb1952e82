//! Wraps with AES-256-GCM under the versions of a key file.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::file::{KeyFile, KeyVersion};
use crate::{
    adapters::system::{
        bounded_file::{READ_TIMEOUT, in_time},
        file_thread::FileThread,
    },
    domain::{
        envelope::{AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::{KekSnapshot, KekVersion},
        key_id::Lineage,
        secret::Plaintext,
        time::Monotonic,
    },
    ports::kek::{Kek, Unwrap, Wrapped},
};

/// The prefix of each ciphertext. The form is `local:v<version>:` and then base64 of nonce,
/// ciphertext and tag.
const PREFIX: &str = "local:v";

const NONCE_BYTES: usize = 12;

/// How long a read of the key file may take. Callers wait for about 2.8 s, and must get this
/// keeper's own error.
const READ_LIMIT: Duration = Duration::from_secs(2);

/// The embedded keeper. It learns of rotations by other processes at the next `describe`.
pub struct LocalKek(Arc<Shared>);

struct Shared {
    path: PathBuf,
    file: RwLock<Arc<KeyFile>>,
    /// Reads the file again, once at a time, so that an older reading cannot replace a newer one.
    thread: FileThread,
}

impl LocalKek {
    /// Returns the keeper of the key file at `path`.
    ///
    /// # Errors
    /// Returns the errors of [`KeyFile::load`], and [`Code::KeeperTimeout`] when the read does not end
    /// within [`READ_TIMEOUT`] and a tenth more.
    pub fn open(path: PathBuf) -> Result<Self, KmsError> {
        let read = path.clone();
        let file = in_time(READ_TIMEOUT, move |_until| KeyFile::load(&read))
            .map_err(|_late| not_read(&path))??;
        let file = RwLock::new(Arc::new(file));
        Ok(Self(Arc::new(Shared { path, file, thread: FileThread::within(READ_LIMIT) })))
    }

    /// Returns the lineage that follows from the identity of the key.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        Lineage::of_place("local", &[self.current().id()])
    }

    fn current(&self) -> Arc<KeyFile> {
        self.0.current()
    }

    /// Reads the file again, on another thread: the file is small, but its disk may hang.
    async fn reload(&self) -> Result<Arc<KeyFile>, KmsError> {
        let shared = Arc::clone(&self.0);
        let read = self.0.thread.run(move || shared.reload()).await;
        read.unwrap_or_else(|| Err(not_read(&self.0.path)))
    }

    fn cipher(&self, version: KekVersion) -> Result<RandomizedNonceKey, KmsError> {
        let file = self.current();
        let newest = file.versions.last_key_value().map(|(newest, _)| *newest);
        let entry = file.versions.get(&version).ok_or_else(|| {
            if newest.is_some_and(|newest| version > newest) {
                KmsError::new(
                    Code::VersionNotYet,
                    format!("the key file does not contain version {version} yet"),
                    "wait; if this lasts, restore the key file with its newest versions",
                )
            } else {
                KmsError::new(
                    Code::VersionRetired,
                    format!("the key file does not contain version {version} any more"),
                    "restore the key file from a backup",
                )
            }
        })?;
        RandomizedNonceKey::new(&AES_256_GCM, entry.key.as_slice()).map_err(|_unspecified| {
            KmsError::new(Code::Internal, "AES-256-GCM rejected a key of 32 bytes", "report this")
        })
    }

    /// Returns the version and the bytes of a ciphertext.
    fn parse(ciphertext: &Ciphertext) -> Result<(KekVersion, Vec<u8>), KmsError> {
        std::str::from_utf8(ciphertext.as_bytes())
            .ok()
            .and_then(|text| text.strip_prefix(PREFIX)?.split_once(':'))
            .and_then(|(number, body)| {
                Some((KekVersion::parse(number)?, STANDARD.decode(body).ok()?))
            })
            .ok_or_else(rejected)
    }
}

fn not_read(path: &Path) -> KmsError {
    KmsError::new(
        Code::KeeperTimeout,
        format!("the key file {} was not read in time", path.display()),
        "check the disk or the network file system that has the key file",
    )
}

impl Shared {
    fn current(&self) -> Arc<KeyFile> {
        Arc::clone(&self.file.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn reload(&self) -> Result<Arc<KeyFile>, KmsError> {
        let file = KeyFile::load(&self.path)?;
        if file.id() != self.current().id() {
            return Err(KmsError::new(
                Code::KeyReplaced,
                format!("the key file {} contains another key", self.path.display()),
                "restore the former key file; or, if the change is intended, restart this process",
            ));
        }
        let file = Arc::new(file);
        *self.file.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&file);
        Ok(file)
    }
}

#[async_trait]
impl Kek for LocalKek {
    async fn describe(&self, _deadline: Monotonic) -> Result<KekSnapshot, KmsError> {
        let file = self.reload().await?;
        let dated = |(version, entry): (&KekVersion, &KeyVersion)| (*version, entry.created.into());
        Ok(KekSnapshot::new(file.versions.iter().map(dated)))
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        _deadline: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        let cipher = self.cipher(version)?;
        // Reserves room for the tag: growth would leave a copy of the plaintext in memory.
        let mut sealed = Zeroizing::new(Vec::with_capacity(plaintext.len().saturating_add(64)));
        sealed.extend_from_slice(plaintext.expose());
        let nonce = cipher
            .seal_in_place_append_tag(Aad::from(associated_data.as_bytes()), &mut *sealed)
            .map_err(|_unspecified| {
                KmsError::new(Code::Internal, "AES-256-GCM failed to seal", "report this")
            })?;
        let mut bytes = nonce.as_ref().to_vec();
        bytes.extend_from_slice(&sealed);
        let text = format!("{PREFIX}{version}:{}", STANDARD.encode(bytes));
        Ok(Wrapped::new(Ciphertext::new(text.into_bytes())?, version))
    }

    async fn unwrap<'a>(
        &self,
        sealed: Unwrap<'a>,
        _deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        let (version, bytes) = Self::parse(sealed.ciphertext)?;
        let cipher = self.cipher(version)?;
        let (nonce, body) = bytes.split_at_checked(NONCE_BYTES).ok_or_else(rejected)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_length| rejected())?;
        let mut buffer = Zeroizing::new(body.to_vec());
        let aad = Aad::from(sealed.associated_data.as_bytes());
        let plaintext =
            cipher.open_in_place(nonce, aad, &mut buffer).map_err(|_forged| rejected())?;
        Ok(Plaintext::new(plaintext.to_vec()))
    }

    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
        Self::parse(ciphertext).map(|(version, _)| version)
    }
}

impl fmt::Debug for LocalKek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKek").field("path", &self.0.path).finish_non_exhaustive()
    }
}

fn rejected() -> KmsError {
    KmsError::new(
        Code::CiphertextRejected,
        "the embedded keeper does not recognise the ciphertext under its key id and annotations",
        "the stored object was changed or is of another key; restore it from a backup",
    )
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::domain::envelope::Annotations;

    /// A key file and a ciphertext of an earlier release. Stored data outlives releases.
    const FILE: &str = r#"{"format": 1, "id": "000102030405060708090a0b0c0d0e0f", "versions": [
        {"version": 1, "created": 1700000000, "key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}]}"#;
    const KEY_ID: &str = "v1.dEzbQ_fTrGtz07NFanqJVg";
    const CIPHERTEXT: &str =
        "local:v1:MDEyMzQ1Njc4OWFiVjEhFjNDqXP/XiebyQWqYieWJH1ys93ZgbWJcm7TCPc3zPrEaJq1MpWvH7fXrWSu";

    fn keeper(text: &str) -> (LocalKek, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.json");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        (LocalKek::open(path).unwrap(), directory)
    }

    #[tokio::test]
    async fn reads_what_an_earlier_release_wrote() {
        let (keeper, _directory) = keeper(FILE);
        let ciphertext = Ciphertext::new(CIPHERTEXT.into()).unwrap();
        let associated_data = AssociatedData::binding(KEY_ID, &Annotations::ours());
        let sealed = Unwrap { ciphertext: &ciphertext, associated_data: &associated_data };
        let plaintext = keeper.unwrap(sealed, Monotonic::default()).await.unwrap();
        assert_eq!(plaintext.expose(), b"a seed that an old release wrote");
    }

    #[tokio::test]
    async fn reports_a_file_system_that_hangs() {
        let (LocalKek(shared), _directory) = keeper(FILE);
        let mut shared = Arc::into_inner(shared).unwrap();
        shared.thread = FileThread::within(Duration::from_millis(20));
        let keeper = LocalKek(Arc::new(shared));
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        assert_eq!(keeper.0.thread.run(move || hangs.recv()).await, None);
        let error = keeper.describe(Monotonic::default()).await.unwrap_err();
        assert_eq!(error.code(), Code::KeeperTimeout, "{error}");
        drop(release);
    }

    #[tokio::test]
    async fn rejects_another_key_at_the_same_path() {
        let (keeper, directory) = keeper(FILE);
        let other = FILE.replace("0001020304", "ffffffffff");
        fs::write(directory.path().join("key.json"), other).unwrap();
        let error = keeper.describe(Monotonic::default()).await.unwrap_err();
        assert_eq!(error.code(), Code::KeyReplaced);
    }
}
