//! For tests: a keeper whose calls wait until the test releases them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::{
    domain::{
        envelope::{AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::{KekSnapshot, KekVersion},
        secret::Plaintext,
        time::Monotonic,
    },
    ports::{
        abilities::Abilities,
        kek::{Kek, Unwrap, Wrapped},
    },
};

/// Unwraps a ciphertext to itself. Rejects `bad` and denies `forbidden`. Fails three texts in a
/// batch and unwraps them alone: `late` is of a version that is not there yet, `inside` fails
/// inside the keeper, and `no batches` is denied. Each call waits for a permit.
#[derive(Clone, Debug)]
pub(super) struct GatedKek {
    gate: Arc<Semaphore>,
    under_way: Arc<AtomicUsize>,
    /// The number of items of each call, in the order of the calls.
    calls: Arc<Mutex<Vec<usize>>>,
    pub(super) wraps: Arc<AtomicUsize>,
    pub(super) abilities: Abilities,
}

impl GatedKek {
    /// Returns a keeper with batches that holds every call.
    pub(super) fn new() -> Self {
        Self {
            gate: Arc::new(Semaphore::new(0)),
            under_way: Arc::default(),
            calls: Arc::default(),
            wraps: Arc::default(),
            abilities: Abilities::default().with_batches(128),
        }
    }

    /// Lets this many calls end.
    pub(super) fn release(&self, calls: usize) {
        self.gate.add_permits(calls);
    }

    pub(super) fn calls(&self) -> Vec<usize> {
        self.calls.lock().unwrap().clone()
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    async fn hold(&self, items: usize) {
        struct Leave<'a>(&'a AtomicUsize);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.calls.lock().unwrap().push(items);
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let _leave = Leave(&self.under_way);
        self.gate.acquire().await.unwrap().forget();
    }
}

fn opened(sealed: Unwrap<'_>) -> Result<Plaintext, KmsError> {
    match sealed.ciphertext.as_bytes() {
        b"bad" => Err(KmsError::new(Code::CiphertextRejected, "bad", "none")),
        b"forbidden" => Err(KmsError::new(Code::PermissionDenied, "forbidden", "none")),
        bytes => Ok(Plaintext::new(bytes.to_vec())),
    }
}

/// Returns a ciphertext that unwraps to `text`.
pub(super) fn ciphertext(text: &str) -> Ciphertext {
    Ciphertext::new(text.as_bytes().to_vec()).unwrap()
}

#[async_trait]
impl Kek for GatedKek {
    fn abilities(&self) -> Abilities {
        self.abilities
    }

    async fn describe(&self, _: Monotonic) -> Result<KekSnapshot, KmsError> {
        Err(KmsError::new(Code::Internal, "not described", "none"))
    }

    async fn wrap(
        &self,
        version: KekVersion,
        _: &Plaintext,
        _: &AssociatedData,
        _: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        self.wraps.fetch_add(1, Ordering::SeqCst);
        self.hold(1).await;
        Ok(Wrapped::new(ciphertext("wrapped"), version))
    }

    async fn unwrap<'a>(&self, sealed: Unwrap<'a>, _: Monotonic) -> Result<Plaintext, KmsError> {
        self.hold(1).await;
        opened(sealed)
    }

    async fn unwrap_many<'a>(
        &self,
        sealed: &[Unwrap<'a>],
        _: Monotonic,
    ) -> Vec<Result<Plaintext, KmsError>> {
        self.hold(sealed.len()).await;
        let opened = |item: &Unwrap<'_>| match item.ciphertext.as_bytes() {
            b"late" => Err(KmsError::new(Code::VersionNotYet, "late", "none")),
            b"inside" => Err(KmsError::new(Code::KeeperFailed, "inside", "none")),
            b"no batches" => Err(KmsError::new(Code::PermissionDenied, "no batches", "none")),
            _ => opened(*item),
        };
        sealed.iter().map(opened).collect()
    }

    fn version_of(&self, _: &Ciphertext) -> Result<KekVersion, KmsError> {
        Ok(KekVersion::FIRST)
    }
}
