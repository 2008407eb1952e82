//! An API server, reduced to its rules (kube-apiserver's kmsv2 envelope): priming, polls, one seed
//! for many objects, the comparison of key ids, the expiry of three minutes, restarts.

use std::{collections::BTreeSet, sync::Arc};

use vault_kube_kms::{
    domain::error::KmsError,
    ports::kms::{Encrypted, Sealed},
};

use super::{keeper::written_with, node::Node};

const POLL_HEALTHY_MS: u64 = 60_000;
const POLL_FAILING_MS: u64 = 10_000;
const EXPIRY_MS: u64 = 180_000;

/// A seed as it is stored with each object that was written under it.
#[derive(Debug)]
pub struct Stored {
    pub number: u64,
    pub seed: [u8; 32],
    pub sealed: Sealed,
    pub version: u32,
    pub material: u64,
    pub written_ms: u64,
}

#[derive(Default)]
pub struct ApiServer {
    current: Option<(Arc<Stored>, u64)>,
    cached: BTreeSet<u64>,
    next_poll_ms: u64,
    /// Polls in a row in which Encrypt answered another key id than Status.
    pub mismatches: u32,
    /// The last poll found all well.
    pub healthy: bool,
}

impl ApiServer {
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    /// Polls if it is time to. `number` names the seed that an Encrypt would be for.
    pub fn poll(&mut self, node: &Node, now_ms: u64, number: u64) {
        if now_ms < self.next_poll_ms {
            return;
        }
        self.healthy = self.probe(node, now_ms, number).is_ok();
        let wait = if self.healthy { POLL_HEALTHY_MS } else { POLL_FAILING_MS };
        self.next_poll_ms = now_ms + wait;
    }

    fn probe(&mut self, node: &Node, now_ms: u64, number: u64) -> Result<(), Option<KmsError>> {
        let status = node.status().map_err(Some)?;
        let key_id = status.key_id.as_str().to_owned();
        match &mut self.current {
            Some((stored, expires)) if stored.sealed.key_id == key_id => {
                *expires = now_ms + EXPIRY_MS;
            }
            _ => {
                let mut seed = [0x5e; 32];
                seed[..8].copy_from_slice(&number.to_be_bytes());
                let answer = node.encrypt(seed).map_err(Some)?;
                if answer.key_id.as_str() != key_id {
                    self.mismatches += 1;
                    return Err(None);
                }
                let stored = Arc::new(stored(number, seed, answer, now_ms));
                self.cached.insert(number);
                self.current = Some((stored, now_ms + EXPIRY_MS));
            }
        }
        self.mismatches = 0;
        match status.ailment {
            Some(error) => Err(Some(error)),
            None => Ok(()),
        }
    }

    /// What an object written now would be stored with; nothing once the seed has expired.
    pub fn write(&self, now_ms: u64) -> Option<Arc<Stored>> {
        self.current.as_ref().filter(|(_, expires)| now_ms < *expires).map(|(s, _)| s.clone())
    }

    /// Reads an object; `Ok(None)` when the seed was in the cache.
    pub fn read(&mut self, node: &Node, stored: &Stored) -> Result<Option<Vec<u8>>, KmsError> {
        if self.cached.contains(&stored.number) {
            return Ok(None);
        }
        let plaintext = node.decrypt(stored.sealed.clone())?;
        self.cached.insert(stored.number);
        Ok(Some(plaintext.expose().to_vec()))
    }
}

fn stored(number: u64, seed: [u8; 32], answer: Encrypted, now_ms: u64) -> Stored {
    let (version, material) = written_with(&answer.ciphertext);
    let sealed = Sealed {
        ciphertext: answer.ciphertext,
        key_id: answer.key_id.as_str().to_owned(),
        annotations: answer.annotations,
    };
    Stored { number, seed, sealed, version, material, written_ms: now_ms }
}
