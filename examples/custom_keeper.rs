//! A keeper of one's own, and a program that serves it: what an author implements, and how it is held to
//! the contract with `cargo test --features testkit --example custom_keeper`.
//!
//! This one keeps its keys in memory, so they are gone when it is. A real one would ask an HSM
//! or a cloud service; see the contract on [`Kek`] for what it must promise. The program has all commands,
//! flags, probes and metrics of vault-kube-kms, under its own name: `cargo run --example custom_keeper -- --help`.

#![allow(clippy::expect_used, clippy::map_err_ignore, clippy::missing_panics_doc, reason = "short")]

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use vault_kube_kms::{adapters::system::clock::SystemClock, prelude::*};

/// The versions, each with its creation time and its key. Ciphertexts are `version ‖ nonce ‖
/// body`.
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
        Ok(KekSnapshot::new(versions.iter().map(|(v, (created, _))| (*v, (*created).into()))))
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
        let sealed = [nonce.as_ref(), body.as_slice()].concat();
        Ok(Wrapped::new(Ciphertext::of_version(version, &sealed)?, version))
    }

    async fn unwrap<'a>(&self, sealed: Unwrap<'a>, _: Monotonic) -> Result<Plaintext, KmsError> {
        let (version, body) = sealed.ciphertext.version_and_body()?;
        let cipher = self.cipher(version)?;
        let (nonce, body) = body.split_at_checked(12).ok_or_else(rejected)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| rejected())?;
        let (mut body, aad) = (body.to_vec(), Aad::from(sealed.associated_data.as_bytes()));
        let opened = cipher.open_in_place(nonce, aad, &mut body).map_err(|_| rejected())?;
        Ok(Plaintext::new(opened.to_vec()))
    }
}

fn rejected() -> KmsError {
    KmsError::new(Code::CiphertextRejected, "not a ciphertext of this key", "restore a backup")
}

/// `--keeper=memory`, with one flag of its own.
const MEMORY: KeeperKind = KeeperKind::new("memory", FLAGS, read);

const FLAGS: &[Group] = &[(
    "Memory",
    &[flag("memory-versions", Takes::Value("N"), "1", "Key versions that are there at the start")],
)];

fn read(reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperSettings>> {
    let versions = reading.parsed("memory-versions", |text| {
        text.parse()
            .ok()
            .filter(|n| (1..=9).contains(n))
            .ok_or_else(|| format!("{text:?} is not in 1 to 9; write 1 for a new key"))
    });
    Some(Arc::new(MemorySettings { versions: versions? }))
}

#[derive(Debug)]
struct MemorySettings {
    versions: u8,
}

impl KeeperSettings for MemorySettings {
    fn connection(&self) -> String {
        "memory".to_owned()
    }

    // The keeper reads no file and connects to no server, so the sandbox allows neither.
    fn needs(&self, _needs: &mut Needs) {}

    fn open(&self, _: &Surroundings) -> Opened {
        let kek = MemoryKek::default();
        for _ in 0..self.versions {
            kek.rotate();
        }
        Ok(PlainKeeper::of(kek, Lineage::of_place("memory", &[])))
    }
}

fn main() -> ExitCode {
    Program::new(
        "memory-kube-kms",
        "memory-kube-kms 1.0.0",
        "A KMS v2 provider with a key in memory.",
    )
    .keeper(MEMORY)
    .run(std::env::args_os())
}

#[cfg(test)]
mod contract {
    use vault_kube_kms::testkit::Subject;

    use super::*;

    struct Held(Arc<MemoryKek>);

    #[async_trait]
    impl Subject for Held {
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
        Held(Arc::new(keeper))
    });
}
