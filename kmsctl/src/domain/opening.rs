//! Opens a stored object with its seed, as the API server does
//! (`k8s.io/apiserver/pkg/storage/value/encrypt/aes`).
//!
//! ```text
//! seed of type 0   key = seed                                        nonce (12), ciphertext, tag
//! seed of type 1   key = HKDF-Expand-SHA256( seed, info, 32 )  info (32), nonce (12), ciphertext, tag
//! ```
//!
//! Both are AES-256-GCM. The additional data is the whole key of the object in etcd.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Prk},
};
use zeroize::Zeroizing;

use super::{
    envelope::{Envelope, SeedUse},
    stored::is_clear,
};

/// The length of a key, of the information for HKDF, and of a seed, in bytes.
const KEY: usize = 32;

/// Why an object cannot be opened although its seed was unwrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unopened {
    /// The object or its seed has an impossible length.
    Length,
    /// The tag does not fit: the object was moved to another key of etcd, or changed.
    Binding,
    /// The opened bytes are neither protobuf of Kubernetes nor JSON.
    Form,
}

/// Opens `envelope`, the value of `key` in etcd, with its unwrapped seed. The opened bytes are only
/// compared with the forms that the API server writes, and then zeroed.
///
/// # Errors
/// Why the API server cannot read the object either.
pub fn open(seed: &[u8], envelope: &Envelope<'_>, key: &[u8]) -> Result<(), Unopened> {
    let encrypted = envelope.encrypted.as_slice();
    let (object_key, rest) = match envelope.seed_use {
        SeedUse::Key => {
            let seed = seed.first_chunk::<KEY>().filter(|_| seed.len() == KEY);
            (Zeroizing::new(*seed.ok_or(Unopened::Length)?), encrypted)
        }
        SeedUse::DerivedKey => {
            let (info, rest) = encrypted.split_at_checked(KEY).ok_or(Unopened::Length)?;
            (derived(seed, info)?, rest)
        }
    };
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Unopened::Length)?;
    let length = |_source| Unopened::Length;
    let object_key = UnboundKey::new(&AES_256_GCM, object_key.as_slice()).map_err(length)?;
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let mut opened = Zeroizing::new(sealed.to_vec());
    let opened = LessSafeKey::new(object_key)
        .open_in_place(nonce, Aad::from(key), &mut opened)
        .map_err(|_source| Unopened::Binding)?;
    if is_clear(opened) { Ok(()) } else { Err(Unopened::Form) }
}

/// The length of the derived key.
struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        KEY
    }
}

fn derived(seed: &[u8], info: &[u8]) -> Result<Zeroizing<[u8; KEY]>, Unopened> {
    if seed.len() < KEY {
        return Err(Unopened::Length);
    }
    let mut key = Zeroizing::new([0; KEY]);
    Prk::new_less_safe(HKDF_SHA256, seed)
        .expand(&[info], Length)
        .and_then(|expanded| expanded.fill(key.as_mut_slice()))
        .map_err(|_source| Unopened::Length)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    /// Objects that `NewGCMTransformer` and `NewHKDFExtendedNonceGCMTransformer` of k8s.io/apiserver
    /// 0.36.3 made with the seed 00 to 1f and this additional data.
    const KEY_IN_ETCD: &[u8] = b"/registry/secrets/default/db";
    const OF_TYPE_0: &str = "4YLlOG+W9l1BV/IgDh8LomXKpXM71DdxXWX0HNR/mblvA1q9s2aNXLw=";
    const OF_TYPE_1: &str = "5OuY2aqZ0OuCRg3LeeSd6mCp3hOwgOGKe0a37chbfRXkdH7OoRr6AEOD2XYjmLXLCKMFU0/nisgyfq3MUEnJaGZjgb+YqlAsHA==";

    fn seed() -> Vec<u8> {
        (0..32).collect()
    }

    fn envelope(seed_use: SeedUse, encrypted: Vec<u8>) -> Envelope<'static> {
        Envelope {
            provider: "vault",
            key_id: "v1.x".to_owned(),
            wrapped_seed: vec![1],
            annotations: std::collections::BTreeMap::new(),
            seed_use,
            encrypted,
        }
    }

    fn objects() -> [Envelope<'static>; 2] {
        [(SeedUse::Key, OF_TYPE_0), (SeedUse::DerivedKey, OF_TYPE_1)]
            .map(|(seed_use, text)| envelope(seed_use, STANDARD.decode(text).unwrap()))
    }

    #[test]
    fn opens_what_the_api_server_wrote() {
        for object in objects() {
            assert_eq!(open(&seed(), &object, KEY_IN_ETCD), Ok(()), "{:?}", object.seed_use);
        }
    }

    #[test]
    fn a_moved_or_changed_object_does_not_open() {
        for object in objects() {
            let moved = b"/registry/secrets/default/other";
            assert_eq!(open(&seed(), &object, moved), Err(Unopened::Binding));
            for at in 0..object.encrypted.len() {
                let mut changed = object.clone();
                changed.encrypted[at] ^= 1;
                assert_eq!(open(&seed(), &changed, KEY_IN_ETCD), Err(Unopened::Binding), "{at}");
            }
            let mut other = seed();
            other[31] ^= 1;
            assert_eq!(open(&other, &object, KEY_IN_ETCD), Err(Unopened::Binding));
        }
    }

    #[test]
    fn wrong_lengths_are_no_panic() {
        for object in objects() {
            for length in 0..object.encrypted.len() {
                let mut cut = object.clone();
                cut.encrypted.truncate(length);
                assert!(open(&seed(), &cut, KEY_IN_ETCD).is_err(), "{length}");
            }
            for length in 0..32 {
                assert_eq!(open(&seed()[..length], &object, KEY_IN_ETCD), Err(Unopened::Length));
            }
        }
    }
}
