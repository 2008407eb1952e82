//! The key of the keeper in memory: its versions, and the actions of an operator.

use std::collections::BTreeMap;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    rand,
};
use vault_kube_kms::{
    domain::{key::KekVersion, time::UnixTime},
    ports::clock::Clock,
};

use super::faults::Fault;

#[derive(Clone, Debug)]
pub struct Version {
    pub created: UnixTime,
    /// The name of the version at a keeper without creation times.
    pub name: [u8; 16],
    key: [u8; 32],
}

impl Version {
    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.key).unwrap())
    }

    pub fn seal(&self, nonce: [u8; 12], associated_data: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let (nonce, mut body) = (Nonce::assume_unique_for_key(nonce), plaintext.to_vec());
        let sealed = self.cipher();
        sealed.seal_in_place_append_tag(nonce, Aad::from(associated_data), &mut body).unwrap();
        body
    }

    pub fn open(&self, nonce: [u8; 12], associated_data: &[u8], body: &[u8]) -> Option<Vec<u8>> {
        let (nonce, mut body) = (Nonce::assume_unique_for_key(nonce), body.to_vec());
        let opened = self.cipher();
        let opened = opened.open_in_place(nonce, Aad::from(associated_data), &mut body).ok()?;
        Some(opened.to_vec())
    }
}

/// The connection between the keeper and its imagined server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Open,
    Away,
    Hangs,
}

/// The data behind the lock.
#[derive(Debug)]
pub struct State {
    pub versions: BTreeMap<KekVersion, Version>,
    pub min_decryption: KekVersion,
    /// Versions of the key that was replaced.
    pub former: Vec<Version>,
    /// The next calls that fail.
    pub failures: u32,
    pub described: i64,
}

impl State {
    /// A key of one version.
    pub fn new(clock: &dyn Clock) -> Self {
        let mut state = Self {
            versions: BTreeMap::new(),
            min_decryption: KekVersion::FIRST,
            former: Vec::new(),
            failures: 0,
            described: 0,
        };
        state.rotate(clock, None);
        state
    }

    pub fn latest(&self) -> KekVersion {
        self.versions.last_key_value().map_or(KekVersion::FIRST, |(version, _)| *version)
    }

    pub fn rotate(&mut self, clock: &dyn Clock, fault: Option<Fault>) {
        let next = self.versions.last_key_value().map_or(KekVersion::FIRST, |(v, _)| v.next());
        if fault == Some(Fault::RotationDropsTheFormerVersion) {
            self.versions.clear();
        }
        if fault == Some(Fault::FailsForFourCallsAfterARotation) {
            self.failures = 4;
        }
        let created = UnixTime::from_secs(clock.wall().secs());
        self.versions.insert(next, Version { created, name: random(), key: random() });
    }

    pub fn replace(&mut self, clock: &dyn Clock, fault: Option<Fault>) {
        let born = self.versions[&KekVersion::FIRST].created;
        self.former = std::mem::take(&mut self.versions).into_values().collect();
        self.min_decryption = KekVersion::FIRST;
        self.rotate(clock, None);
        if fault == Some(Fault::ReplacementHasTheFormerCreationTime) {
            self.versions.get_mut(&KekVersion::FIRST).unwrap().created = born;
        }
    }
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).unwrap();
    bytes
}
