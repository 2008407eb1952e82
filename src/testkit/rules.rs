//! The rules, one function each.

use std::{sync::Arc, time::Duration};

use super::{Subject, deadline, wall};
pub use super::{
    hooks::{
        a_call_that_hangs_ends_by_its_deadline, a_replaced_key_is_noticed,
        a_retired_version_is_told_apart, an_outage_is_told_and_ends,
    },
    timing::*,
    use_cases::*,
};
use crate::{
    domain::{
        envelope::{Annotations, AssociatedData, Ciphertext, FORMAT_ANNOTATION},
        error::{Code, KmsError},
        key::KekVersion,
        secret::Plaintext,
    },
    ports::kek::{Unwrap, Wrapped},
};

const SEED: &[u8; 32] = b"0123456789abcdef0123456789ABCDEF";

/// The layer that binds and pins for a keeper that does not.
const SEAL: &str = "vault_kube_kms::adapters::layers::seal::Seal";

/// The most items that the suite puts into one call.
const BATCH_MAX: usize = 512;

fn bound_to(key_id: &str) -> AssociatedData {
    AssociatedData::binding(key_id, &Annotations::ours())
}

async fn latest(subject: &dyn Subject) -> KekVersion {
    subject.kek().describe(deadline(subject)).await.unwrap().latest
}

async fn wrap(subject: &dyn Subject, bytes: &[u8], associated_data: &AssociatedData) -> Wrapped {
    let version = latest(subject).await;
    let plaintext = Plaintext::new(bytes.to_vec());
    let kek = subject.kek();
    kek.wrap(version, &plaintext, associated_data, deadline(subject)).await.unwrap()
}

async fn unwrap(
    subject: &dyn Subject,
    ciphertext: &Ciphertext,
    associated_data: &AssociatedData,
) -> Result<Plaintext, KmsError> {
    subject.kek().unwrap(Unwrap { ciphertext, associated_data }, deadline(subject)).await
}

async fn refused(subject: &dyn Subject, bytes: Vec<u8>, associated_data: &AssociatedData) {
    let shown = String::from_utf8_lossy(&bytes).into_owned();
    let ciphertext = Ciphertext::new(bytes).unwrap();
    if let Err(error) = subject.kek().version_of(&ciphertext) {
        assert_eq!(error.code(), Code::CiphertextRejected, "version_of {shown}: {error}");
    }
    match unwrap(subject, &ciphertext, associated_data).await {
        Ok(_) => panic!("{shown} was unwrapped"),
        Err(error) => assert!(
            matches!(
                error.code(),
                Code::CiphertextRejected | Code::VersionNotYet | Code::VersionRetired
            ),
            "{shown}: {error}"
        ),
    }
}

/// A keeper says the same of its abilities each time, and it binds and pins versions. One that does
/// not is held to the rules inside the layer that does both for it.
pub async fn it_binds_and_pins_versions(subject: &dyn Subject) {
    let kek = subject.kek();
    let abilities = kek.abilities();
    assert!(
        abilities.binds && abilities.pins_versions,
        "{abilities:?}: give the suite the keeper inside `{SEAL}`"
    );
    assert_eq!(kek.abilities(), abilities, "abilities never change");
}

/// A key has versions, each with a creation time that is not in the future, and no flaw.
pub async fn a_key_is_described_with_dated_versions(subject: &dyn Subject) {
    let snapshot = subject.kek().describe(deadline(subject)).await.unwrap();
    assert_eq!(snapshot.flaw, None);
    assert!(snapshot.versions.contains_key(&snapshot.latest));
    for created in snapshot.versions.values().filter_map(|identity| identity.created()) {
        assert!(created.secs() > 0 && created <= wall().after(Duration::from_secs(5)));
    }
}

/// Seeds of every length come back as they were.
pub async fn what_was_wrapped_unwraps(subject: &dyn Subject) {
    for length in [1, 16, 31, 32, 33, 64, 512] {
        let bytes: Vec<u8> = (0..=255).cycle().take(length).collect();
        let wrapped = wrap(subject, &bytes, &bound_to("a")).await;
        let plaintext = unwrap(subject, &wrapped.ciphertext, &bound_to("a")).await.unwrap();
        assert_eq!(plaintext.expose(), bytes, "{length} bytes");
    }
}

/// A wrap is never repeated, and both of two wraps unwrap.
pub async fn two_wraps_of_one_plaintext_differ(subject: &dyn Subject) {
    let (one, two) =
        (wrap(subject, SEED, &bound_to("a")).await, wrap(subject, SEED, &bound_to("a")).await);
    assert_ne!(one.ciphertext, two.ciphertext);
    for wrapped in [one, two] {
        let plaintext = unwrap(subject, &wrapped.ciphertext, &bound_to("a")).await.unwrap();
        assert_eq!(plaintext.expose(), SEED);
    }
}

/// A wrap uses the version that was asked for, not the latest, and the ciphertext says so.
pub async fn the_version_asked_for_is_used(subject: &dyn Subject) {
    let first = latest(subject).await;
    subject.rotate().await;
    let second = latest(subject).await;
    assert!(second > first, "a rotation adds a version");
    let kek = subject.kek();
    for version in [first, second] {
        let plaintext = Plaintext::new(SEED.to_vec());
        let wrapped =
            kek.wrap(version, &plaintext, &bound_to("a"), deadline(subject)).await.unwrap();
        assert_eq!(wrapped.version, version);
        assert_eq!(kek.version_of(&wrapped.ciphertext), Ok(version));
    }
}

/// Every version that the keeper describes, and lets write, wraps and unwraps.
pub async fn every_version_described_wraps_and_unwraps(subject: &dyn Subject) {
    subject.rotate().await;
    subject.rotate().await;
    let kek = subject.kek();
    let snapshot = kek.describe(deadline(subject)).await.unwrap();
    let plaintext = Plaintext::new(SEED.to_vec());
    for version in snapshot.versions.range(snapshot.write_floor()..).map(|(version, _)| *version) {
        let wrapped = kek.wrap(version, &plaintext, &bound_to("a"), deadline(subject)).await;
        let wrapped = wrapped.unwrap_or_else(|error| panic!("wrap with {version}: {error}"));
        let opened = unwrap(subject, &wrapped.ciphertext, &bound_to("a")).await;
        let opened = opened.unwrap_or_else(|error| panic!("unwrap with {version}: {error}"));
        assert!(opened == plaintext, "version {version} unwraps to another plaintext");
    }
}

/// A rotation takes nothing away.
pub async fn old_versions_still_unwrap_after_a_rotation(subject: &dyn Subject) {
    let old = wrap(subject, SEED, &bound_to("a")).await;
    let before = subject.kek().describe(deadline(subject)).await.unwrap();
    subject.rotate().await;
    let after = subject.kek().describe(deadline(subject)).await.unwrap();
    for (version, identity) in &before.versions {
        assert_eq!(after.versions.get(version), Some(identity), "version {version}");
    }
    let plaintext = unwrap(subject, &old.ciphertext, &bound_to("a")).await.unwrap();
    assert_eq!(plaintext.expose(), SEED);
}

/// What was wrapped under one associated data does not unwrap under another, also where the two
/// differ in nothing but a byte at the end, or in length.
pub async fn other_associated_data_is_refused(subject: &dyn Subject) {
    let of_format = |format: &[u8]| {
        let entries = [(FORMAT_ANNOTATION.to_owned(), format.to_vec())];
        AssociatedData::binding("a", &Annotations::new(entries.into()).unwrap())
    };
    let wrapped = wrap(subject, SEED, &of_format(b"1")).await;
    for (other, associated_data) in [
        ("another key id", bound_to("b")),
        ("no key id", bound_to("")),
        ("another last byte", of_format(b"2")),
        ("a byte more", of_format(b"11")),
        ("a byte less", of_format(b"")),
        ("no associated data", AssociatedData::none()),
    ] {
        match unwrap(subject, &wrapped.ciphertext, &associated_data).await {
            Ok(_) => panic!("it was unwrapped under other associated data: {other}"),
            Err(error) => assert_eq!(error.code(), Code::CiphertextRejected, "{other}: {error}"),
        }
    }
}

/// What was wrapped without associated data unwraps so, and only so.
pub async fn no_associated_data_is_a_value_of_its_own(subject: &dyn Subject) {
    let wrapped = wrap(subject, SEED, &AssociatedData::none()).await;
    let plaintext = unwrap(subject, &wrapped.ciphertext, &AssociatedData::none()).await.unwrap();
    assert_eq!(plaintext.expose(), SEED);
    let error = unwrap(subject, &wrapped.ciphertext, &bound_to("a")).await.unwrap_err();
    assert_eq!(error.code(), Code::CiphertextRejected);
}

/// A changed bit in any byte is noticed. (A lone bit in each byte; all eight in some.)
pub async fn every_changed_byte_is_refused(subject: &dyn Subject) {
    let wrapped = wrap(subject, SEED, &bound_to("a")).await;
    let bytes = wrapped.ciphertext.into_bytes();
    for index in 0..bytes.len() {
        let bits = if index % 16 == 0 { 0..8 } else { index % 8..index % 8 + 1 };
        for bit in bits {
            let mut changed = bytes.clone();
            changed[index] ^= 1_u8 << bit;
            refused(subject, changed, &bound_to("a")).await;
        }
    }
}

/// A ciphertext must be whole, and nothing more.
pub async fn a_cut_or_lengthened_ciphertext_is_refused(subject: &dyn Subject) {
    // 31 bytes leave padding in base64, where spellings differ.
    let wrapped = wrap(subject, &SEED[..31], &bound_to("a")).await;
    let bytes = wrapped.ciphertext.into_bytes();
    for length in 1..bytes.len() {
        refused(subject, bytes[..length].to_vec(), &bound_to("a")).await;
    }
    for extra in ["A", "AAAA", "=", "\n", " ", "\0"] {
        let mut longer = bytes.clone();
        longer.extend_from_slice(extra.as_bytes());
        refused(subject, longer, &bound_to("a")).await;
    }
}

/// A ciphertext under the marker of another version of the same key is refused.
pub async fn another_version_marker_is_refused(subject: &dyn Subject) {
    let first = wrap(subject, SEED, &bound_to("a")).await;
    subject.rotate().await;
    let second = wrap(subject, SEED, &bound_to("a")).await;
    let (one, two) = (first.ciphertext.into_bytes(), second.ciphertext.into_bytes());
    // Both have the same length; the first byte that differs in a fixed place is the marker.
    let marker = one.iter().zip(&two).position(|(a, b)| a != b).unwrap();
    let mut swapped = one.clone();
    swapped[marker] = two[marker];
    refused(subject, swapped, &bound_to("a")).await;
}

/// Bytes that no keeper made are refused, without a panic: short ones, some of every value, and a
/// good ciphertext with a number, a sign or a separator too many at any place of it.
pub async fn nonsense_is_refused(subject: &dyn Subject) {
    let good = wrap(subject, SEED, &bound_to("a")).await.ciphertext.into_bytes();
    let every_value: Vec<u8> = (0..=255).collect();
    let backwards = good.iter().rev().copied().collect();
    let twice = [&good[..], &good].concat();
    for whole in [b"x".to_vec(), b"\0\0".to_vec(), b":::".to_vec(), every_value, backwards, twice] {
        refused(subject, whole, &bound_to("a")).await;
    }
    // A header stands in the first bytes, so each place there is tried, and some of the others.
    for place in (0..good.len()).filter(|place| *place < 32 || place % 8 == 0) {
        let (before, after) = good.split_at(place);
        let number = &[b'9'; 20][..];
        // In the last three, what follows the place is gone.
        for nonsense in [
            [before, number, after].concat(),
            [before, b"-", after].concat(),
            [before, b":", after].concat(),
            [before, number].concat(),
            [before, b"===="].concat(),
            [before, b"\xff\0\xff\0"].concat(),
        ] {
            refused(subject, nonsense, &bound_to("a")).await;
        }
    }
}

/// A wrap with a version that the keeper does not have (yet) says just that.
pub async fn a_version_that_does_not_exist_yet_is_told_apart(subject: &dyn Subject) {
    let next = latest(subject).await.next();
    let plaintext = Plaintext::new(SEED.to_vec());
    let kek = subject.kek();
    let error = kek.wrap(next, &plaintext, &bound_to("a"), deadline(subject)).await.unwrap_err();
    assert_eq!(error.code(), Code::VersionNotYet, "{error}");
}

/// Several unwraps at once answer in order, each for itself.
pub async fn one_bad_item_fails_no_other(subject: &dyn Subject) {
    let associated_data = bound_to("a");
    let good = wrap(subject, SEED, &associated_data).await.ciphertext;
    let other = wrap(subject, b"another", &associated_data).await.ciphertext;
    let mut changed = good.as_bytes().to_vec();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let bad = Ciphertext::new(changed).unwrap();
    let items = [&good, &bad, &other]
        .map(|ciphertext| Unwrap { ciphertext, associated_data: &associated_data });
    let results = subject.kek().unwrap_many(&items, deadline(subject)).await;
    assert_eq!(results.len(), 3);
    assert_eq!(results[0].as_ref().unwrap().expose(), SEED);
    assert_eq!(results[1].as_ref().unwrap_err().code(), Code::CiphertextRejected);
    assert_eq!(results[2].as_ref().unwrap().expose(), b"another");
}

/// As many items as the keeper takes in one call each get their own answer, in order.
pub async fn a_full_batch_is_answered_item_by_item(subject: &dyn Subject) {
    let associated_data = bound_to("a");
    let kek = subject.kek();
    // A keeper without batches asks for one item after the other, or for some at once.
    let size = kek.abilities().batch_max.clamp(32, BATCH_MAX);
    let seeds: Vec<_> = (0..7_u8).map(|number| [number; 32]).collect();
    let mut ciphertexts = Vec::new();
    for seed in &seeds {
        ciphertexts.push(wrap(subject, seed, &associated_data).await.ciphertext);
    }
    let item = |ciphertext| Unwrap { ciphertext, associated_data: &associated_data };
    let items: Vec<_> = ciphertexts.iter().map(item).cycle().take(size).collect();
    let results = kek.unwrap_many(&items, deadline(subject)).await;
    assert_eq!(results.len(), size, "unwrap_many gives a result for each item");
    for (number, (result, seed)) in results.iter().zip(seeds.iter().cycle()).enumerate() {
        let opened = result.as_ref().unwrap_or_else(|error| panic!("item {number}: {error}"));
        assert!(opened.expose() == seed, "item {number} of {size} got the answer of another one");
    }
}

/// 64 callers at once each get their own plaintext back.
pub async fn many_calls_at_once_do_not_mix(subject: &dyn Subject) {
    let version = latest(subject).await;
    let calls = (0..64_u8).map(|caller| {
        let (kek, until) = (subject.kek(), deadline(subject));
        tokio::spawn(async move {
            let (seed, associated_data) = (Plaintext::new(vec![caller; 32]), bound_to("a"));
            let wrapped = kek.wrap(version, &seed, &associated_data, until).await.unwrap();
            let sealed =
                Unwrap { ciphertext: &wrapped.ciphertext, associated_data: &associated_data };
            assert!(kek.unwrap(sealed, until).await.unwrap() == seed, "caller {caller}");
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

/// An error can be logged as it is.
pub async fn errors_are_one_line_and_hold_no_plaintext(subject: &dyn Subject) {
    let wrapped = wrap(subject, SEED, &bound_to("a")).await;
    let kek = Arc::clone(&subject.kek());
    let far = KekVersion::new(u32::MAX).unwrap();
    let plaintext = Plaintext::new(SEED.to_vec());
    let errors = [
        unwrap(subject, &wrapped.ciphertext, &bound_to("b")).await.unwrap_err(),
        kek.wrap(far, &plaintext, &bound_to("a"), deadline(subject)).await.unwrap_err(),
    ];
    for error in errors {
        let text = format!("{error} {error:?}");
        assert!(!text.contains('\n') && !error.remedy().is_empty(), "{text}");
        // The beginning of the seed as text, in base64, in hex, and as Rust shows bytes.
        for seed in ["0123456789", "MDEyMzQ1Njc4", "30313233343536", "48, 49, 50, 51"] {
            assert!(!text.contains(seed), "an error holds the plaintext: {text}");
        }
    }
}
