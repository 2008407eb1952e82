//! Planted faults of the program. Each breaks one rule, which shows that the rule can fail.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::sleep;
use vault_kube_kms::{
    domain::{
        envelope::{AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::{KekSnapshot, KekVersion},
        key_id::{KeyId, KeyIdentity, Lineage},
        secret::Plaintext,
        service::KeyService,
        time::{Monotonic, UnixTime},
    },
    ports::{
        kek::{Kek, Unwrap, Wrapped},
        kms::{Encrypted, KeyManagement, Sealed, StatusAnswer},
    },
};

use super::invariants::BUDGET;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A background task ends.
    EndedTask,
    /// A background task panics when it renews its token.
    Panic,
    /// Each connection opens others.
    ManyConnections,
    /// Unwraps go out in many batches at once.
    ManyLanes,
    /// Tasks that never end.
    Leak,
    /// The secret ID changes again and again.
    ChangingSecretId,
    /// Another process uses the wrapping tokens first.
    StolenToken,
    /// A process that knows nothing of an earlier refusal.
    ForgottenRefusal,
    /// A name is resolved once and never again.
    ForgottenMove,
    /// A foreign cluster reports the id of our cluster.
    UnsaidForeign,
    /// A proxy's refusals look like the keeper's.
    ForgedRefusal,
    /// Wraps are answered after their deadline.
    Late,
    NoCause,
    ToldSecret,
    /// An outage is called tampering.
    Tampering,
    /// Each unwrap is asked for many times.
    Repeated,
    /// Status names another key id than Encrypt.
    OtherKeyId,
    /// Status names an older version than before.
    OlderKeyId,
    /// Status repeats its last healthy answer.
    StaleStatus,
}

/// The key service with a planted fault in its answers.
pub struct Planted {
    pub inner: KeyService,
    pub plant: Option<Plant>,
    well: Mutex<Option<StatusAnswer>>,
}

impl Planted {
    pub fn new(inner: KeyService, plant: Option<Plant>) -> Self {
        Self { inner, plant, well: Mutex::default() }
    }

    fn has(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    fn error(&self, error: KmsError) -> KmsError {
        match self.plant {
            Some(Plant::NoCause) => KmsError::new(error.code(), "", "none"),
            Some(Plant::ToldSecret) => KmsError::new(error.code(), "the canary", "none"),
            Some(Plant::Tampering) => {
                KmsError::new(Code::CiphertextRejected, "an outage", "restore a backup")
            }
            _ => error,
        }
    }
}

/// An id of version 1 that no key of the model has.
fn other_id() -> KeyId {
    let identity = KeyIdentity::new(Lineage::of_place("another", &["k"]), 0);
    identity.id_of(KekVersion::FIRST, UnixTime::default())
}

#[async_trait]
impl KeyManagement for Planted {
    fn status(&self) -> Result<StatusAnswer, KmsError> {
        let status = self.inner.status().map_err(|error| self.error(error));
        let mut well = self.well.lock().unwrap();
        match status {
            Ok(status) if self.has(Plant::OtherKeyId) => {
                Ok(StatusAnswer { key_id: other_id(), ..status })
            }
            Ok(status)
                if self.has(Plant::OlderKeyId) && !status.key_id.as_str().starts_with("v1.") =>
            {
                let key_id = if well.is_some() { other_id() } else { status.key_id.clone() };
                *well = Some(status.clone());
                Ok(StatusAnswer { key_id, ..status })
            }
            Err(error) if self.has(Plant::StaleStatus) => well.clone().ok_or(error),
            Ok(status) if self.has(Plant::StaleStatus) => Ok(well.insert(status).clone()),
            status => status,
        }
    }

    async fn encrypt(
        &self,
        plaintext: Plaintext,
        deadline: Monotonic,
    ) -> Result<Encrypted, KmsError> {
        if self.has(Plant::Late) {
            sleep(BUDGET + Duration::from_millis(100)).await;
        }
        self.inner.encrypt(plaintext, deadline).await.map_err(|error| self.error(error))
    }

    async fn decrypt(&self, sealed: Sealed, deadline: Monotonic) -> Result<Plaintext, KmsError> {
        if self.has(Plant::Repeated) {
            for _ in 0..20 {
                drop(self.inner.decrypt(sealed.clone(), deadline).await);
            }
        }
        self.inner.decrypt(sealed, deadline).await.map_err(|error| self.error(error))
    }
}

impl fmt::Debug for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Planted")
    }
}

/// One keeper behind several layers.
#[derive(Debug)]
pub struct Lanes<K> {
    pub ways: Vec<K>,
    pub next: AtomicUsize,
}

impl<K: Kek> Lanes<K> {
    fn way(&self) -> &K {
        &self.ways[self.next.fetch_add(1, Ordering::Relaxed) % self.ways.len()]
    }
}

#[async_trait]
impl<K: Kek> Kek for Lanes<K> {
    async fn describe(&self, deadline: Monotonic) -> Result<KekSnapshot, KmsError> {
        self.way().describe(deadline).await
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        deadline: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        self.way().wrap(version, plaintext, associated_data, deadline).await
    }

    async fn unwrap<'a>(
        &self,
        sealed: Unwrap<'a>,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        self.way().unwrap(sealed, deadline).await
    }

    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
        self.way().version_of(ciphertext)
    }
}
