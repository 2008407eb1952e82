//! Stands in for your device: AES-256-GCM with keys in memory. Replace this file.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    error::Unspecified,
};
use vault_kube_kms::{
    adapters::system::clock::SystemClock, domain::time::UnixTime, ports::clock::Clock as _,
};

/// Holds the keys, each with the time of its creation.
#[derive(Default)]
pub struct Device(Mutex<Vec<(UnixTime, [u8; 32])>>);

impl Device {
    /// Makes a key.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn make_key(&self) -> Result<(), Unspecified> {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key)?;
        self.keys().push((SystemClock::new().wall(), key));
        Ok(())
    }

    /// Returns the creation time of each key, the oldest first.
    pub fn made_at(&self) -> Vec<UnixTime> {
        self.keys().iter().map(|(made, _)| *made).collect()
    }

    /// Seals `plaintext` with the key at `index`, bound to `associated_data`. Returns `None` when there
    /// is no such key.
    pub fn seal(&self, index: usize, plaintext: &[u8], associated_data: &[u8]) -> Option<Vec<u8>> {
        let mut body = plaintext.to_vec();
        let nonce =
            self.key(index)?.seal_in_place_append_tag(Aad::from(associated_data), &mut body);
        Some([nonce.ok()?.as_ref().as_slice(), &body].concat())
    }

    /// Opens a result of [`Device::seal`]. Returns `None` when key, bytes or associated data differ.
    pub fn open(&self, index: usize, sealed: &[u8], associated_data: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_at_checked(12)?;
        let (nonce, mut body) = (Nonce::try_assume_unique_for_key(nonce).ok()?, body.to_vec());
        let opened = self.key(index)?.open_in_place(nonce, Aad::from(associated_data), &mut body);
        opened.map(|plaintext| plaintext.to_vec()).ok()
    }

    fn key(&self, index: usize) -> Option<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, &self.keys().get(index)?.1).ok()
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Vec<(UnixTime, [u8; 32])>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
