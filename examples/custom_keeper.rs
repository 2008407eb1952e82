//! A keeper of one's own: what an author implements, and how it is held to the contract with
//! `cargo test --features testkit --example custom_keeper`.
//!
//! This one keeps its keys in memory, so they are gone when it is. A real one would ask an HSM
//! or a cloud service; see the contract on [`Kek`] for what it must promise.

#![allow(clippy::expect_used, clippy::map_err_ignore, clippy::missing_panics_doc, reason = "short")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use vault_kube_kms::{
    adapters::system::clock::SystemClock,
    domain::{
        envelope::{AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::{KekSnapshot, KekVersion},
        secret::Plaintext,
        time::{Monotonic, UnixTime},
    },
    ports::{
        clock::Clock,
        kek::{Kek, Unwrap, Wrapped},
    },
};

/// Versions by number, each with its birth and its key. Ciphertexts are `version ‖ nonce ‖ body`.
#[derive(Debug, Default)]
pub struct MemoryKek(Mutex<BTreeMap<KekVersion, (UnixTime, [u8; 32])>>);

impl MemoryKek {
    /// Adds a version.
    pub fn rotate(&self) {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).expect("random bytes");
        let mut versions = self.0.lock().expect("no panic under the lock");
        let next = versions.last_key_value().map_or(KekVersion::FIRST, |(v, _)| v.next());
        versions.insert(next, (UnixTime::from_secs(SystemClock::new().wall().secs()), key));
    }

    fn cipher(&self, version: KekVersion) -> Result<RandomizedNonceKey, KmsError> {
        let versions = self.0.lock().expect("no panic under the lock");
        let (_, key) = versions.get(&version).ok_or_else(|| {
            KmsError::new(Code::VersionNotYet, format!("no version {version}"), "rotate the key")
        })?;
        RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| rejected())
    }
}

#[async_trait]
impl Kek for MemoryKek {
    async fn describe(&self, _deadline: Monotonic) -> Result<KekSnapshot, KmsError> {
        let versions = self.0.lock().expect("no panic under the lock");
        let latest = *versions.last_key_value().expect("at least one version").0;
        Ok(KekSnapshot {
            versions: versions.iter().map(|(version, (born, _))| (*version, *born)).collect(),
            latest,
            min_decryption: KekVersion::FIRST,
            min_encryption: None,
            keeper_time: None,
            flaw: None,
            warnings: Vec::new(),
        })
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        _deadline: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        let mut body = plaintext.expose().to_vec();
        let aad = Aad::from(associated_data.as_bytes());
        let nonce = self.cipher(version)?.seal_in_place_append_tag(aad, &mut body);
        let nonce = nonce.map_err(|_| rejected())?;
        let bytes = [&version.get().to_be_bytes()[..], nonce.as_ref(), &body].concat();
        Ok(Wrapped::new(Ciphertext::new(bytes)?, version))
    }

    async fn unwrap<'a>(&self, sealed: Unwrap<'a>, _: Monotonic) -> Result<Plaintext, KmsError> {
        let cipher = self.cipher(self.version_of(sealed.ciphertext)?)?;
        let (_, rest) = sealed.ciphertext.as_bytes().split_at(4);
        let (nonce, body) = rest.split_at_checked(12).ok_or_else(rejected)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| rejected())?;
        let (mut body, aad) = (body.to_vec(), Aad::from(sealed.associated_data.as_bytes()));
        let opened = cipher.open_in_place(nonce, aad, &mut body).map_err(|_| rejected())?;
        Ok(Plaintext::new(opened.to_vec()))
    }

    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
        let number = ciphertext.as_bytes().first_chunk().copied().map(u32::from_be_bytes);
        number.and_then(KekVersion::new).ok_or_else(rejected)
    }
}

fn rejected() -> KmsError {
    KmsError::new(Code::CiphertextRejected, "not a ciphertext of this key", "restore a backup")
}

fn main() {
    let keeper = MemoryKek::default();
    keeper.rotate();
    let _port: Arc<dyn Kek> = Arc::new(keeper);
}

#[cfg(test)]
mod contract {
    use vault_kube_kms::testkit::Subject;

    use super::*;

    struct Memory(Arc<MemoryKek>);

    #[async_trait]
    impl Subject for Memory {
        fn kek(&self) -> Arc<dyn Kek> {
            Arc::<MemoryKek>::clone(&self.0)
        }
        async fn rotate(&self) {
            self.0.rotate();
        }
        fn clock(&self) -> Arc<dyn Clock> {
            Arc::new(SystemClock::new())
        }
    }

    vault_kube_kms::kek_contract!({
        let keeper = MemoryKek::default();
        keeper.rotate();
        Memory(Arc::new(keeper))
    });
}
