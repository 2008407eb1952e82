//! Several unwraps in one request: one result for each, whatever happens to the others.

use serde_json::{Value, json};
use vault_kube_kms::{
    domain::{
        envelope::{Annotations, AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::KekVersion,
        secret::Plaintext,
    },
    ports::kek::Unwrap,
};

use crate::{
    stand_in::{SOON, subject, within},
    support::{
        stand_in::{Fault, Manner, StandIn},
        transit::TransitSubject,
    },
};

const DECRYPT: &str = "transit/decrypt/k1";

async fn wrapped(subject: &TransitSubject, count: u8) -> Vec<(Ciphertext, AssociatedData)> {
    let mut wrapped = Vec::new();
    for number in 0..count {
        let bound = AssociatedData::binding(&format!("id-{number}"), &Annotations::ours());
        let seed = Plaintext::new(vec![number; 32]);
        let until = within(subject, SOON);
        let made = subject.kek.wrap(KekVersion::FIRST, &seed, &bound, until).await.unwrap();
        wrapped.push((made.ciphertext, bound));
    }
    wrapped
}

async fn unwrapped(
    subject: &TransitSubject,
    sealed: &[(Ciphertext, AssociatedData)],
) -> Vec<Result<Plaintext, KmsError>> {
    let items: Vec<_> = sealed
        .iter()
        .map(|(ciphertext, associated_data)| Unwrap { ciphertext, associated_data })
        .collect();
    subject.kek.unwrap_many(&items, within(subject, SOON)).await
}

fn codes(outcomes: &[Result<Plaintext, KmsError>]) -> Vec<Option<Code>> {
    outcomes.iter().map(|outcome| outcome.as_ref().err().map(KmsError::code)).collect()
}

fn batches(stand_in: &StandIn) -> Vec<usize> {
    stand_in.shared.engine.lock().unwrap().batches.clone()
}

#[tokio::test]
async fn sends_at_most_128_items_in_a_request() {
    let (subject, stand_in) = subject(Manner::default()).await;
    let sealed: Vec<_> = wrapped(&subject, 10).await.into_iter().cycle().take(300).collect();
    let before = stand_in.requests_for(DECRYPT);
    let outcomes = unwrapped(&subject, &sealed).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.as_ref().unwrap().expose(), [(index % 10) as u8; 32]);
    }
    assert_eq!(batches(&stand_in), [128, 128, 44]);
    assert_eq!(stand_in.requests_for(DECRYPT) - before, 3);
}

#[tokio::test]
async fn a_failed_item_fails_only_itself() {
    let (subject, stand_in) = subject(Manner::default()).await;
    let mut sealed = wrapped(&subject, 5).await;
    sealed[1].1 = AssociatedData::binding("moved", &Annotations::ours());
    sealed[3].0 = Ciphertext::new(b"vault:v9:AAAA".to_vec()).unwrap();
    sealed[4].0 = Ciphertext::new(b"nothing of the kind".to_vec()).unwrap();
    let (rejected, not_yet) = (Some(Code::CiphertextRejected), Some(Code::VersionNotYet));
    let outcomes = unwrapped(&subject, &sealed).await;
    assert_eq!(codes(&outcomes), [None, rejected, None, not_yet, rejected]);
    // A ciphertext without the right form is not sent.
    assert_eq!(batches(&stand_in), [4]);
}

#[tokio::test]
async fn a_fault_of_the_server_in_one_item_is_an_outage_of_that_item_only() {
    let (subject, stand_in) = subject(Manner::default()).await;
    let mut sealed = wrapped(&subject, 3).await;
    let broken = String::from_utf8(sealed[1].0.as_bytes().to_vec()).unwrap();
    stand_in.shared.engine.lock().unwrap().fails_inside = Some(broken);
    let failed = Some(Code::KeeperAnswer);
    // The server answers 500, because it caused all failures.
    assert_eq!(codes(&unwrapped(&subject, &sealed).await), [None, failed, None]);
    // The server answers 400, because the caller caused one failure.
    sealed[2].1 = AssociatedData::none();
    let rejected = Some(Code::CiphertextRejected);
    assert_eq!(codes(&unwrapped(&subject, &sealed).await), [None, failed, rejected]);
    assert_eq!(batches(&stand_in), [3, 3]);
}

#[tokio::test]
async fn halves_a_batch_that_is_too_large_for_the_server() {
    let (subject, stand_in) = subject(Manner::default()).await;
    let sealed = wrapped(&subject, 4).await;
    stand_in.shared.engine.lock().unwrap().refuses_batches = true;
    assert_eq!(codes(&unwrapped(&subject, &sealed).await), [None; 4]);
    assert_eq!(batches(&stand_in), [4, 2, 2]);
    stand_in.shared.engine.lock().unwrap().refuses_batches = false;
    // A proxy's limit on the size of a request.
    stand_in.fail_next(1, DECRYPT, &Fault::Says(413, "<html>".to_owned()));
    assert_eq!(codes(&unwrapped(&subject, &sealed).await), [None; 4]);
    assert_eq!(batches(&stand_in), [4, 2, 2, 2, 2]);
    // A limit of Vault's listener, from 1.21 on.
    let limit = Fault::error(500, "JSON array exceeds allowed element count");
    stand_in.fail_next(1, DECRYPT, &limit);
    assert_eq!(codes(&unwrapped(&subject, &sealed).await), [None; 4]);
    assert_eq!(batches(&stand_in), [4, 2, 2, 2, 2, 2, 2]);
}

#[tokio::test]
async fn a_failed_batch_fails_each_item_with_the_cause() {
    let (subject, stand_in) = subject(Manner::default()).await;
    let sealed = wrapped(&subject, 3).await;
    for (requests, fault, code) in [
        (
            1,
            Fault::error(403, "1 error occurred:\n\t* permission denied\n\n"),
            Code::PermissionDenied,
        ),
        (3, Fault::nonsense(), Code::Intermediary),
        (
            1,
            Fault::Says(200, r#"{"data":{"batch_results":[{"plaintext":""}]}}"#.into()),
            Code::KeeperAnswer,
        ),
    ] {
        stand_in.fail_next(requests, DECRYPT, &fault);
        assert_eq!(codes(&unwrapped(&subject, &sealed).await), [Some(code); 3], "{fault:?}");
        crate::stand_in::heals(&subject).await;
    }
    assert_eq!(codes(&unwrapped(&subject, &sealed).await), [None; 3]);
}

type MixUp = fn(&mut Vec<Value>);

/// A result counts only for the item that it names.
#[tokio::test]
async fn refuses_results_that_name_another_item() {
    let (subject, stand_in) = subject(Manner::default()).await;
    let sealed = wrapped(&subject, 4).await;
    let mixed: [(MixUp, [bool; 4]); 5] = [
        (|results| results.reverse(), [false; 4]),
        (|results| results.swap(1, 2), [true, false, false, true]),
        (|results| *results = vec![results[0].clone(); 4], [true, false, false, false]),
        (|results| drop(results.pop()), [false; 4]),
        (
            |results| results.iter_mut().take(2).for_each(|result| result["reference"] = json!("")),
            [false, false, true, true],
        ),
    ];
    for (mix_up, right) in mixed {
        stand_in.shared.engine.lock().unwrap().mixes_up = Some(mix_up);
        let outcomes = unwrapped(&subject, &sealed).await;
        let code = |right: bool| (!right).then_some(Code::KeeperAnswer);
        assert_eq!(codes(&outcomes), right.map(code));
        for (number, outcome) in outcomes.iter().enumerate().filter(|(at, _)| right[*at]) {
            assert_eq!(outcome.as_ref().unwrap().expose(), [number as u8; 32]);
        }
    }
}

/// A server without `reference` does not name the item of a result.
#[tokio::test]
async fn accepts_results_without_a_reference_in_their_order() {
    let (subject, stand_in) = subject(Manner::default()).await;
    let sealed = wrapped(&subject, 4).await;
    stand_in.shared.engine.lock().unwrap().echoes = false;
    assert_eq!(codes(&unwrapped(&subject, &sealed).await), [None; 4]);
}
