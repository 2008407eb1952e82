//! The rules, one function each.

use std::{sync::Arc, time::Duration};

pub use super::use_cases::*;
use super::{Subject, deadline, wall};
use crate::{
    domain::{
        envelope::{Annotations, AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::KekVersion,
        secret::Plaintext,
    },
    ports::kek::{Unwrap, Wrapped},
};

const SEED: &[u8; 32] = b"0123456789abcdef0123456789ABCDEF";

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

/// What was wrapped under one associated data does not unwrap under another.
pub async fn other_associated_data_is_refused(subject: &dyn Subject) {
    let wrapped = wrap(subject, SEED, &bound_to("a")).await;
    for other in [bound_to("b"), bound_to(""), AssociatedData::none()] {
        let error = unwrap(subject, &wrapped.ciphertext, &other).await.unwrap_err();
        assert_eq!(error.code(), Code::CiphertextRejected, "{other:?}: {error}");
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

/// Bytes that no keeper made are refused, without a panic.
pub async fn nonsense_is_refused(subject: &dyn Subject) {
    let all_bytes: Vec<u8> = (0..=255).collect();
    for nonsense in [
        &b"x"[..],
        b"vault:",
        b"vault:v",
        b"vault:v1:",
        b"vault:v1:====",
        b"\0\0",
        b":::",
        b"vault:v99999999999999999999:AAAA",
        b"vault:v-1:AAAA",
        b"vault:v1:AAAA:BBBB",
        &all_bytes,
    ] {
        refused(subject, nonsense.to_vec(), &bound_to("a")).await;
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

/// A call whose deadline has passed ends soon, in whatever way.
pub async fn a_passed_deadline_ends_the_call(subject: &dyn Subject) {
    let passed = subject.clock().now();
    let kek = subject.kek();
    let call = kek.describe(passed);
    let bound = subject.clock();
    tokio::select! {
        _ended = call => (),
        () = bound.sleep(Duration::from_secs(2)) => panic!("describe outlived its deadline by 2 s"),
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
        assert!(!text.contains("0123456789abcdef") && !text.contains("MDEyMzQ1Njc4"), "{text}");
    }
}
