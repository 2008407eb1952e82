use std::sync::Mutex;

use super::*;
use crate::domain::envelope::Annotations;

/// Wraps by reversing the bytes. Does not pin, does not bind, and names no version. Records the
/// associated data that it receives.
#[derive(Debug, Default)]
struct Reverses {
    given: Mutex<Vec<Vec<u8>>>,
}

impl Reverses {
    fn reverse(&self, bytes: &[u8], associated_data: &AssociatedData) -> Vec<u8> {
        self.given.lock().unwrap().push(associated_data.as_bytes().to_vec());
        bytes.iter().rev().copied().collect()
    }
}

#[async_trait]
impl Kek for Reverses {
    fn abilities(&self) -> Abilities {
        Abilities::default().without_binding().without_pinning()
    }

    async fn describe(&self, _: Monotonic) -> Result<KekSnapshot, KmsError> {
        unreachable!("nothing is described")
    }

    async fn wrap(
        &self,
        _: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        _: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        let wrapped = self.reverse(plaintext.expose(), associated_data);
        Ok(Wrapped::new(Ciphertext::new(wrapped)?, KekVersion::FIRST))
    }

    async fn unwrap<'a>(&self, sealed: Unwrap<'a>, _: Monotonic) -> Result<Plaintext, KmsError> {
        Ok(Plaintext::new(self.reverse(sealed.ciphertext.as_bytes(), sealed.associated_data)))
    }

    fn version_of(&self, _: &Ciphertext) -> Result<KekVersion, KmsError> {
        unreachable!("it names no version")
    }
}

const NEVER: Monotonic = Monotonic::at(std::time::Duration::from_hours(1));

fn bound(key_id: &str) -> AssociatedData {
    AssociatedData::binding(key_id, &Annotations::ours())
}

fn layer() -> Seal<Reverses> {
    Seal::new(Arc::new(Reverses::default()))
}

async fn wrap(layer: &Seal<Reverses>, seed: &[u8], key_id: &str) -> Wrapped {
    let version = KekVersion::new(7).unwrap();
    layer.wrap(version, &Plaintext::new(seed.to_vec()), &bound(key_id), NEVER).await.unwrap()
}

#[tokio::test]
async fn names_the_requested_version_and_passes_no_associated_data_on() {
    let layer = layer();
    let wrapped = wrap(&layer, b"a seed", "a").await;
    assert_eq!(wrapped.version.get(), 7);
    assert_eq!(layer.version_of(&wrapped.ciphertext), Ok(wrapped.version));
    assert_eq!(*layer.inner.given.lock().unwrap(), [Vec::<u8>::new()]);
}

#[tokio::test]
async fn binds_for_a_keeper_that_does_not() {
    let layer = layer();
    let wrapped = wrap(&layer, b"a seed", "a").await;
    for (key_id, expected) in [("a", true), ("b", false)] {
        let associated_data = bound(key_id);
        let sealed = Unwrap { ciphertext: &wrapped.ciphertext, associated_data: &associated_data };
        let opened = layer.unwrap(sealed, NEVER).await;
        match opened {
            Ok(plaintext) => assert!(expected && plaintext.expose() == b"a seed", "{key_id}"),
            Err(error) => {
                assert!(!expected && error.code() == Code::CiphertextRejected, "{key_id}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn rejects_each_changed_byte_and_each_cut() {
    let layer = layer();
    let good = wrap(&layer, b"a seed", "a").await.ciphertext.into_bytes();
    let changed = (0..good.len()).map(|index| {
        let mut bytes = good.clone();
        bytes[index] ^= 1;
        bytes
    });
    let cut = (1..good.len()).map(|length| good[..length].to_vec());
    let associated_data = bound("a");
    for bytes in changed.chain(cut) {
        let ciphertext = Ciphertext::new(bytes).unwrap();
        let sealed = Unwrap { ciphertext: &ciphertext, associated_data: &associated_data };
        let error = layer.unwrap(sealed, NEVER).await.unwrap_err();
        assert_eq!(error.code(), Code::CiphertextRejected, "{ciphertext:?}");
    }
}

#[tokio::test]
async fn answers_each_item_of_a_batch_in_order() {
    let layer = layer();
    let one = wrap(&layer, b"one", "a").await.ciphertext;
    let two = wrap(&layer, b"two", "b").await.ciphertext;
    let bad = Ciphertext::new(b"nonsense".to_vec()).unwrap();
    let (a, b) = (bound("a"), bound("b"));
    let items = [(&one, &a), (&bad, &a), (&two, &b), (&two, &a)]
        .map(|(ciphertext, associated_data)| Unwrap { ciphertext, associated_data });
    let outcomes = layer.unwrap_many(&items, NEVER).await;
    let texts: Vec<_> = outcomes
        .iter()
        .map(|o| o.as_ref().map(Plaintext::expose).map_err(KmsError::code))
        .collect();
    let rejected = Err(Code::CiphertextRejected);
    assert_eq!(texts, [Ok(&b"one"[..]), rejected, Ok(&b"two"[..]), rejected]);
}

/// Compares with the vector of docs/formats.md, which was computed without this code.
#[tokio::test]
async fn matches_the_documented_format() {
    let page = include_str!("../../../docs/formats.md");
    let (_, hex) = page.split_once("sealed ciphertext, in hex:\n\n```\n").unwrap();
    let (hex, _) = hex.split_once("```").unwrap();
    let hex: String = hex.split_whitespace().collect();
    let (version, key) = (KekVersion::new(7).unwrap(), Plaintext::new((0..32).collect()));
    let wrapped_key = Ciphertext::new((0..32).rev().collect()).unwrap();
    let seed = Plaintext::new((100..132).collect());
    let associated_data = bound("v7.i3mXGWk7kRIMaqQWOKfv-Q");
    let sealed = seal(version, &key, &wrapped_key, &seed, &associated_data).unwrap();
    let ours =
        sealed.as_bytes().iter().fold(String::new(), |all, byte| all + &format!("{byte:02x}"));
    assert_eq!(ours, hex);
    let sealed = Unwrap { ciphertext: &sealed, associated_data: &associated_data };
    let opened = layer().unwrap(sealed, NEVER).await.unwrap();
    assert_eq!(opened, seed);
}
