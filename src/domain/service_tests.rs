use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::*;
use crate::{
    domain::{
        envelope::{Ciphertext, FORMAT_ANNOTATION},
        health::OutagePolicy,
        key::KekSnapshot,
        key_id::{KeyIdentity, Lineage},
        rotation::KeyRing,
        time::UnixTime,
    },
    ports::{
        clock::MockClock,
        kek::{MockKek, Wrapped},
        telemetry::MockTelemetry,
    },
};

const START: i64 = 1_000_000;
const SEED: [u8; 32] = [7; 32];

fn version(number: u32) -> KekVersion {
    KekVersion::new(number).unwrap()
}

fn identity() -> KeyIdentity {
    KeyIdentity::new(Lineage::of_place("test", &["k"]), 0)
}

fn id_of(number: u32) -> String {
    identity().id_of(version(number), created_at(number)).as_str().to_owned()
}

fn created_at(number: u32) -> UnixTime {
    UnixTime::from_secs(START).after(Duration::from_secs(u64::from(number)))
}

fn snapshot(latest: u32) -> KekSnapshot {
    KekSnapshot::new((1..=latest).map(|number| (version(number), created_at(number).into())))
}

/// A readable ciphertext: the version in one byte, then the associated data.
fn sealed(number: u32, associated_data: &AssociatedData) -> Ciphertext {
    let mut bytes = vec![u8::try_from(number).unwrap()];
    bytes.extend_from_slice(associated_data.as_bytes());
    Ciphertext::new(bytes).unwrap()
}

fn fail<T>(code: Code) -> Result<T, KmsError> {
    Err(KmsError::new(code, "test", "none"))
}

/// A keeper with `latest` versions that binds associated data.
fn correct_keeper(latest: u32) -> MockKek {
    let mut kek = MockKek::new();
    kek.expect_describe().returning(move |_| Ok(snapshot(latest)));
    kek.expect_wrap().returning(|version, _, associated_data, _| {
        Ok(Wrapped::new(sealed(version.get(), associated_data), version))
    });
    expect_unwraps(&mut kek);
    kek
}

fn expect_unwraps(kek: &mut MockKek) {
    kek.expect_unwrap().returning(|item, _| {
        let (_, bound) = item.ciphertext.as_bytes().split_first().unwrap();
        if bound != item.associated_data.as_bytes() {
            return fail(Code::CiphertextRejected);
        }
        // A proof compares its probe; all other calls of these tests wrap SEED.
        let probe = String::from_utf8_lossy(bound).contains("proof");
        let bytes =
            if probe { b"vault-kube-kms proof, no secret.".to_vec() } else { SEED.to_vec() };
        Ok(Plaintext::new(bytes))
    });
    kek.expect_version_of()
        .returning(|ciphertext| Ok(version(u32::from(*ciphertext.as_bytes().first().unwrap()))));
}

/// The service over `kek`, and its clock in seconds, which the test sets.
fn service(kek: MockKek, policy: OutagePolicy) -> (KeyService, Arc<AtomicU64>) {
    accepting(BTreeMap::new(), kek, policy)
}

/// The same for an operator that names the versions of these key ids.
fn accepting(
    accepted: BTreeMap<String, KekVersion>,
    kek: MockKek,
    policy: OutagePolicy,
) -> (KeyService, Arc<AtomicU64>) {
    let seconds = Arc::new(AtomicU64::new(0));
    let mut clock = MockClock::new();
    let reading = Arc::clone(&seconds);
    let now = move || Duration::from_secs(reading.load(Ordering::SeqCst));
    clock.expect_now().returning({
        let now = now.clone();
        move || Monotonic::at(now())
    });
    clock.expect_wall().returning(move || UnixTime::from_secs(START).after(now()));
    clock.expect_sleep().returning(|_| ());
    let mut telemetry = MockTelemetry::new();
    telemetry.expect_record().returning(|_| ());
    let ports =
        Ports { kek: Arc::new(kek), clock: Arc::new(clock), telemetry: Arc::new(telemetry) };
    let ring = KeyRing::new(identity(), Duration::from_mins(1), accepted);
    let watch = KeyWatch::new(ports, ring, policy, Duration::from_secs(30));
    (KeyService::new(Arc::new(watch), true), seconds)
}

async fn ready(kek: MockKek) -> KeyService {
    let (service, _) = service(kek, OutagePolicy::StopWrites);
    observe(&service).await;
    service
}

async fn observe(service: &KeyService) {
    service.watch.read_metadata().await;
    service.watch.prove(Duration::ZERO).await;
}

fn soon() -> Monotonic {
    Monotonic::at(Duration::from_secs(1_000_000))
}

fn stored(answer: Encrypted) -> Sealed {
    Sealed {
        ciphertext: answer.ciphertext,
        key_id: answer.key_id.as_str().to_owned(),
        annotations: answer.annotations,
    }
}

fn code<T>(result: Result<T, KmsError>) -> Option<Code> {
    result.err().map(|error| error.code())
}

#[tokio::test]
async fn decrypts_what_it_encrypted_under_the_announced_id() {
    let service = ready(correct_keeper(1)).await;
    let announced = service.status().unwrap();
    let answer = service.encrypt(Plaintext::new(SEED.to_vec()), soon()).await.unwrap();
    assert_eq!((answer.key_id.as_str(), &announced.key_id), (id_of(1).as_str(), &answer.key_id));
    let opened = service.decrypt(stored(answer), soon()).await.unwrap();
    assert_eq!(opened.expose(), SEED);
}

/// The object is as it was written; only the flag is wrong.
#[tokio::test]
async fn a_wrong_version_of_an_accepted_key_id_is_told_as_such() {
    let accepted = BTreeMap::from([("v1.old".to_owned(), version(2))]);
    let (service, _) = accepting(accepted, correct_keeper(2), OutagePolicy::StopWrites);
    observe(&service).await;
    let written = service.encrypt(Plaintext::new(SEED.to_vec()), soon()).await.unwrap();
    let moved = Sealed {
        ciphertext: Ciphertext::new(vec![1, 0]).unwrap(),
        key_id: "v1.old".to_owned(),
        ..stored(written)
    };
    let error = service.decrypt(moved, soon()).await.unwrap_err();
    assert_eq!(error.code(), Code::KeyIdUnknown);
    let text = error.to_string();
    assert!(text.contains("give version 1 for this key id in --accept-key-id"), "{text}");
}

#[tokio::test]
async fn nothing_is_written_before_the_version_is_proven() {
    let (service, _) = service(correct_keeper(1), OutagePolicy::StopWrites);
    assert_eq!(code(service.status()), Some(Code::Starting));
    service.watch.read_metadata().await;
    assert_eq!(code(service.status()), Some(Code::ProofPending));
    let refused = service.encrypt(Plaintext::new(SEED.to_vec()), soon()).await;
    assert_eq!(code(refused), Some(Code::ProofPending));
    service.watch.prove(Duration::ZERO).await;
    assert!(service.status().is_ok());
}

#[tokio::test]
async fn rejects_a_keeper_that_ignores_associated_data() {
    let mut kek = MockKek::new();
    kek.expect_describe().returning(|_| Ok(snapshot(1)));
    kek.expect_wrap()
        .returning(|version, _, aad, _| Ok(Wrapped::new(sealed(version.get(), aad), version)));
    kek.expect_unwrap()
        .returning(|_, _| Ok(Plaintext::new(b"vault-kube-kms proof, no secret.".to_vec())));
    let service = ready(kek).await;
    assert_eq!(code(service.status()), Some(Code::AadNotEnforced));
    let refused = service.encrypt(Plaintext::new(SEED.to_vec()), soon()).await;
    assert_eq!(code(refused), Some(Code::AadNotEnforced));
}

#[tokio::test]
async fn rejects_an_empty_or_oversized_seed_without_a_call() {
    let (service, _) = service(MockKek::new(), OutagePolicy::StopWrites);
    for size in [0, CIPHERTEXT_MAX + 1, 1 << 20] {
        let refused = service.encrypt(Plaintext::new(vec![0; size]), soon()).await;
        assert_eq!(code(refused), Some(Code::InvalidRequest), "{size} bytes");
    }
}

/// The keeper's answer is wrong, and not the call.
#[tokio::test]
async fn an_unwrapped_seed_of_a_wrong_size_is_the_keepers_fault() {
    for size in [0, CIPHERTEXT_MAX + 1] {
        let mut kek = correct_keeper(1);
        kek.checkpoint();
        kek = MockKek::new();
        kek.expect_describe().returning(|_| Ok(snapshot(1)));
        kek.expect_wrap().returning(|_, _, aad, _| Ok(Wrapped::new(sealed(1, aad), version(1))));
        kek.expect_version_of().returning(|_| Ok(version(1)));
        kek.expect_unwrap().returning(move |item, _| {
            let bound = String::from_utf8_lossy(item.associated_data.as_bytes()).into_owned();
            let genuine =
                item.ciphertext.as_bytes().get(1..) == Some(item.associated_data.as_bytes());
            match (bound.contains("proof"), genuine) {
                (true, true) => Ok(Plaintext::new(b"vault-kube-kms proof, no secret.".to_vec())),
                (true, false) => fail(Code::CiphertextRejected),
                (false, _) => Ok(Plaintext::new(vec![0; size])),
            }
        });
        let service = ready(kek).await;
        let sealed = stored(service.encrypt(Plaintext::new(SEED.to_vec()), soon()).await.unwrap());
        let refused = service.decrypt(sealed, soon()).await;
        assert_eq!(code(refused), Some(Code::KeeperAnswer), "{size} bytes");
    }
}

#[tokio::test]
async fn rejects_a_change_of_any_field() {
    let service = ready(correct_keeper(2)).await;
    let good =
        || async { stored(service.encrypt(Plaintext::new(SEED.to_vec()), soon()).await.unwrap()) };
    let renamed = BTreeMap::from([("Format.vault-kube-kms".to_owned(), b"1".to_vec())]);
    let other_format = BTreeMap::from([(FORMAT_ANNOTATION.to_owned(), b"2".to_vec())]);
    let mut added = Annotations::ours().into_entries();
    added.insert("a.b".to_owned(), Vec::new());
    for annotations in [renamed, other_format, added, BTreeMap::new()] {
        let annotations = Annotations::new(annotations).unwrap();
        let changed = Sealed { annotations, ..good().await };
        let refused = service.decrypt(changed.clone(), soon()).await;
        assert_eq!(code(refused), Some(Code::CiphertextRejected), "{changed:?}");
    }
    let moved = Sealed { key_id: id_of(2), ..good().await };
    assert_eq!(code(service.decrypt(moved, soon()).await), Some(Code::CiphertextRejected));
}

#[tokio::test]
async fn rejects_a_foreign_key_id_without_a_call() {
    let mut kek = MockKek::new();
    kek.expect_describe().times(1).returning(|_| Ok(snapshot(1)));
    kek.expect_wrap()
        .returning(|version, _, aad, _| Ok(Wrapped::new(sealed(version.get(), aad), version)));
    // The proof makes two unwraps, the requests make none.
    kek.expect_unwrap().times(2).returning(|item, _| {
        if String::from_utf8_lossy(item.associated_data.as_bytes()).contains("another key") {
            return fail(Code::CiphertextRejected);
        }
        Ok(Plaintext::new(b"vault-kube-kms proof, no secret.".to_vec()))
    });
    let service = ready(kek).await;
    for key_id in ["1", "v1.AAAAAAAAAAAAAAAAAAAAAA", "sha256:abc"] {
        let request = Sealed {
            ciphertext: sealed(1, &AssociatedData::none()).clone(),
            key_id: key_id.to_owned(),
            annotations: Annotations::ours(),
        };
        assert_eq!(code(service.decrypt(request, soon()).await), Some(Code::KeyIdUnknown));
    }
}

#[tokio::test]
async fn refreshes_once_for_a_newer_version() {
    let mut kek = MockKek::new();
    let described = Arc::new(AtomicU64::new(0));
    let reads = Arc::clone(&described);
    kek.expect_describe().returning(move |_| {
        Ok(snapshot(if reads.fetch_add(1, Ordering::SeqCst) == 0 { 1 } else { 2 }))
    });
    kek.expect_wrap()
        .returning(|version, _, aad, _| Ok(Wrapped::new(sealed(version.get(), aad), version)));
    expect_unwraps(&mut kek);
    let service = ready(kek).await;
    let written_by_another_node = |number: u32| {
        let annotations = Annotations::ours();
        let aad = AssociatedData::binding(&id_of(number), &annotations);
        Sealed { ciphertext: sealed(number, &aad), key_id: id_of(number), annotations }
    };
    assert!(service.decrypt(written_by_another_node(2), soon()).await.is_ok());
    assert_eq!(described.load(Ordering::SeqCst), 2);
    for _ in 0..100 {
        let refused = service.decrypt(written_by_another_node(3), soon()).await;
        assert_eq!(code(refused), Some(Code::KeyIdUnknown));
    }
    assert_eq!(described.load(Ordering::SeqCst), 2, "no time passes, so no second refresh");
}

#[tokio::test]
async fn decrypts_objects_of_another_plugin_only_when_allowed() {
    let service = ready(correct_keeper(1)).await;
    let foreign = Sealed {
        ciphertext: sealed(1, &AssociatedData::none()),
        key_id: "their-id".to_owned(),
        annotations: Annotations::default(),
    };
    assert!(service.decrypt(foreign.clone(), soon()).await.is_ok());
    let closed = KeyService::new(Arc::clone(&service.watch), false);
    assert_eq!(code(closed.decrypt(foreign, soon()).await), Some(Code::KeyIdUnknown));
}

#[tokio::test]
async fn rejects_a_wrap_with_another_version() {
    let mut kek = MockKek::new();
    kek.expect_describe().returning(|_| Ok(snapshot(2)));
    kek.expect_wrap().returning(|_, _, aad, _| Ok(Wrapped::new(sealed(2, aad), version(2))));
    expect_unwraps(&mut kek);
    let service = ready(kek).await;
    assert_eq!(code(service.status()), Some(Code::KeeperAnswer));
}

#[tokio::test]
async fn reports_an_outage_after_its_grace_time_under_each_policy() {
    for (policy, expected) in [
        (OutagePolicy::StopWrites, Err(Code::KeeperUnreachable)),
        (OutagePolicy::KeepWriting, Ok(Some(Code::KeeperUnreachable))),
    ] {
        let mut kek = MockKek::new();
        let described = AtomicU64::new(0);
        kek.expect_describe().returning(move |_| match described.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(snapshot(1)),
            _ => fail(Code::KeeperUnreachable),
        });
        kek.expect_wrap()
            .returning(|version, _, aad, _| Ok(Wrapped::new(sealed(version.get(), aad), version)));
        expect_unwraps(&mut kek);
        let (service, seconds) = service(kek, policy);
        observe(&service).await;
        for second in [10, 20, 30] {
            seconds.store(second, Ordering::SeqCst);
            service.watch.read_metadata().await;
            assert_eq!(service.status().unwrap().ailment, None, "{second} s");
        }
        seconds.store(31, Ordering::SeqCst);
        let answer = service.status().map(|answer| answer.ailment.map(|error| error.code()));
        assert_eq!(answer.map_err(|error| error.code()), expected);
    }
}
