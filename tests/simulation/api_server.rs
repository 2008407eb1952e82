//! An API server, reduced to its rules (kube-apiserver's kmsv2 envelope): priming, polls, one seed
//! for many objects, the comparison of key ids, the expiry of three minutes, restarts.

use std::{collections::BTreeSet, sync::Arc};

use vault_kube_kms::{
    domain::error::KmsError,
    ports::kms::{Encrypted, Sealed, StatusAnswer},
};

use super::{
    executor::{Call, Executor, Progress},
    keeper::written_with,
    node::Node,
};

const POLL_HEALTHY_MS: u64 = 60_000;
const POLL_FAILING_MS: u64 = 10_000;
const EXPIRY_MS: u64 = 180_000;

/// The time limit of a call.
const TIMEOUT_MS: u64 = 3_000;

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

/// The answers of Status, and of Encrypt if it was called.
type Probe = Result<(StatusAnswer, Option<Encrypted>), KmsError>;

#[derive(Default)]
pub struct ApiServer {
    current: Option<(Arc<Stored>, u64)>,
    cached: BTreeSet<u64>,
    next_poll_ms: u64,
    /// The running poll, with the number and the seed of its Encrypt.
    poll: Option<(Call<Probe>, u64, [u8; 32])>,
    /// Polls in a row in which Encrypt answered another key id than Status.
    pub mismatches: u32,
    /// Whether the last poll succeeded.
    pub healthy: bool,
}

impl ApiServer {
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    /// Polls when it is due, and reads the result of the poll before. `number` names the seed of
    /// a new Encrypt.
    pub fn poll(&mut self, node: &Node, executor: &mut Executor, now_ms: u64, number: u64) {
        if let Some((call, number, seed)) = self.poll.take() {
            let began_ms = call.began_ms;
            match call.progress() {
                Progress::Waiting(call) if now_ms < began_ms + TIMEOUT_MS => {
                    self.poll = Some((call, number, seed));
                    return;
                }
                // The call was cancelled.
                Progress::Waiting(_) | Progress::Lost => self.healthy = false,
                Progress::Answered(probe) => {
                    self.healthy =
                        probe.is_ok_and(|(s, e)| self.take_in(s, e, number, seed, now_ms));
                }
            }
            let wait = if self.healthy { POLL_HEALTHY_MS } else { POLL_FAILING_MS };
            self.next_poll_ms = now_ms + wait;
        }
        if now_ms >= self.next_poll_ms {
            let mut seed = [0x5e; 32];
            seed[..8].copy_from_slice(&number.to_be_bytes());
            let held = self.current.as_ref().map(|(stored, _)| stored.sealed.key_id.clone());
            let call = executor.call(node.index(), now_ms, node.probe(seed, held));
            self.poll = Some((call, number, seed));
        }
    }

    /// Returns whether the last poll succeeded.
    fn take_in(
        &mut self,
        status: StatusAnswer,
        answer: Option<Encrypted>,
        number: u64,
        seed: [u8; 32],
        now_ms: u64,
    ) -> bool {
        if let Some(answer) = answer {
            if answer.key_id != status.key_id {
                self.mismatches += 1;
                return false;
            }
            let stored = Arc::new(stored(number, seed, answer, now_ms));
            self.cached.insert(number);
            self.current = Some((stored, now_ms + EXPIRY_MS));
        } else if let Some((_, expires)) = &mut self.current {
            *expires = now_ms + EXPIRY_MS;
        }
        self.mismatches = 0;
        status.ailment.is_none()
    }

    /// Returns the seed for an object that is written now, or nothing after the seed has expired.
    pub fn write(&self, now_ms: u64) -> Option<Arc<Stored>> {
        self.current.as_ref().filter(|(_, expires)| now_ms < *expires).map(|(s, _)| s.clone())
    }

    /// Returns whether the seed of an object is in the cache.
    pub fn knows(&self, stored: &Stored) -> bool {
        self.cached.contains(&stored.number)
    }

    /// Records that the seed of an object was read.
    pub fn learn(&mut self, stored: &Stored) {
        self.cached.insert(stored.number);
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
