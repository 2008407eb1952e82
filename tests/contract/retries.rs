//! Tests which requests the client repeats.

use std::time::Duration;

use vault_kube_kms::{
    domain::{
        envelope::{Annotations, AssociatedData},
        error::{Code, KmsError},
        key::KekVersion,
        secret::Plaintext,
    },
    ports::kek::{Unwrap, Wrapped},
    testkit::Subject as _,
};

use crate::{
    stand_in::{SOON, subject, within},
    support::{
        admin::Admin,
        stand_in::{Fault, Manner, StandIn},
        transit::TransitSubject,
    },
};

const ENCRYPT: &str = "transit/encrypt/k1";
const DECRYPT: &str = "transit/decrypt/k1";
const READ: &str = "transit/keys/k1";
const LOGIN: &str = "auth/approle/login";

fn bound() -> AssociatedData {
    AssociatedData::binding("id", &Annotations::ours())
}

async fn wrap(subject: &TransitSubject, version: u32, wait: Duration) -> Result<Wrapped, KmsError> {
    let version = KekVersion::new(version).unwrap();
    let seed = Plaintext::new(vec![7; 32]);
    subject.kek.wrap(version, &seed, &bound(), within(subject, wait)).await
}

async fn unwrap(subject: &TransitSubject, wrapped: &Wrapped) -> Result<Plaintext, KmsError> {
    let bound = bound();
    let item = Unwrap { ciphertext: &wrapped.ciphertext, associated_data: &bound };
    subject.kek.unwrap(item, within(subject, SOON)).await
}

/// Returns the number of requests of a wrap that meets these faults one by one, and its result.
async fn cost(faults: &[Fault]) -> (u64, Result<(), Code>) {
    let (subject, stand_in) = subject(Manner::default()).await;
    wrap(&subject, 1, SOON).await.unwrap();
    for fault in faults {
        stand_in.fail_next(1, ENCRYPT, fault);
    }
    let before = stand_in.requests_for(ENCRYPT);
    let ended = wrap(&subject, 1, SOON).await.map(drop).map_err(|error| error.code());
    (stand_in.requests_for(ENCRYPT) - before, ended)
}

#[tokio::test]
async fn a_transient_failure_costs_one_more_request() {
    for fault in [
        Fault::Reset,
        Fault::HalfBody,
        Fault::error(500, "1 error occurred:\n\t* internal error\n\n"),
        Fault::html_502(),
        Fault::redirect_elsewhere(),
        Fault::sealed(),
        Fault::error(503, "overloaded, try again later"),
        Fault::error(412, "required index state not present"),
        Fault::Says(429, r#"{"errors":[]}"#.to_owned()),
        Fault::quota(),
        Fault::error(400, "requested version for encryption is higher than the latest key version"),
    ] {
        assert_eq!(cost(std::slice::from_ref(&fault)).await, (2, Ok(())), "{fault:?}");
    }
}

#[tokio::test]
async fn a_final_answer_costs_no_other_request() {
    for (fault, code) in [
        (Fault::error(400, "refusing to use soft-deleted key"), Code::KeyUnusable),
        (Fault::error(403, "1 error occurred:\n\t* permission denied\n\n"), Code::PermissionDenied),
        (Fault::error(404, "no handler for route"), Code::KeyMissing),
        (Fault::error(405, "1 error occurred:\n\t* unsupported operation\n\n"), Code::KeeperAnswer),
        (Fault::error(413, "http: request body too large"), Code::InvalidRequest),
    ] {
        let (requests, ended) = cost(std::slice::from_ref(&fault)).await;
        assert_eq!((requests, ended), (1, Err(code)), "{fault:?}");
    }
}

#[tokio::test]
async fn no_call_costs_more_than_six_requests() {
    let all = [
        Fault::html_502(),
        Fault::error(400, "version is too new"),
        Fault::Reset,
        Fault::error(412, ""),
        Fault::error(500, "internal error"),
        Fault::error(400, "version is too new"),
        Fault::error(400, "version is too new"),
        Fault::error(400, "version is too new"),
    ];
    assert_eq!(cost(&all).await, (6, Err(Code::VersionNotYet)));
    // There are fewer repeats for one kind of fault.
    let long = vec![Fault::error(500, "internal error"); 8];
    assert_eq!(cost(&long).await, (2, Err(Code::KeeperFailed)));
}

#[tokio::test]
async fn a_version_that_a_node_never_gets_fails_only_that_call() {
    let (subject, stand_in) = subject(Manner::default()).await;
    let wrapped = wrap(&subject, 1, SOON).await.unwrap();
    let before = stand_in.requests_for(ENCRYPT);
    assert_eq!(wrap(&subject, 9, SOON).await.unwrap_err().code(), Code::VersionNotYet);
    assert_eq!(stand_in.requests_for(ENCRYPT) - before, 5, "20, 50, 100, 200 ms");
    unwrap(&subject, &wrapped).await.expect("no breaker has opened");
}

#[tokio::test]
async fn repeats_a_lost_login_once_and_a_refused_one_never() {
    for (fault, requests) in [
        (Fault::ResetAfter, 2),
        // A proxy's page says nothing about the secret ID.
        (Fault::Says(400, "<html>".to_owned()), 2),
        (Fault::Says(403, "<html>".to_owned()), 2),
        (Fault::error(400, "invalid role or secret ID"), 1),
    ] {
        let stand_in = StandIn::start().await;
        stand_in.fail_next(1, LOGIN, &fault);
        let admin = Admin::new(&stand_in.address, "unused", Some(stand_in.ca.clone()));
        let subject = TransitSubject::new(admin, stand_in.provisioned.clone());
        let described = subject.kek.describe(within(&subject, SOON)).await;
        assert_eq!(described.is_ok(), requests == 2, "{fault:?}");
        assert_eq!(stand_in.requests_for(LOGIN), requests, "{fault:?}");
    }
}

#[tokio::test]
async fn retries_end_by_the_deadline_with_the_cause_of_the_last_try() {
    let (subject, stand_in) = subject(Manner::default()).await;
    wrap(&subject, 1, SOON).await.unwrap();
    for (fault, code) in [
        (Fault::quota(), Code::KeeperOverloaded),
        (Fault::html_502(), Code::Intermediary),
        (Fault::Hang, Code::KeeperTimeout),
    ] {
        stand_in.set_fault(Some(fault.clone()));
        let began = subject.clock().now();
        let error = wrap(&subject, 1, Duration::from_millis(700)).await.unwrap_err();
        let took = subject.clock().now().since(began);
        assert_eq!(error.code(), code, "{fault:?}: {error}");
        // The time limit of a request that hangs is two seconds.
        assert!(took < Duration::from_millis(1_700), "{fault:?}: {took:?}");
        stand_in.set_fault(None);
        crate::stand_in::heals(&subject).await;
    }
}

#[tokio::test]
async fn spares_a_failed_endpoint_and_then_sends_one_request_at_a_time() {
    let (subject, stand_in) = subject(Manner::default()).await;
    wrap(&subject, 1, SOON).await.unwrap();
    stand_in.set_fault(Some(Fault::html_502()));
    wrap(&subject, 1, SOON).await.unwrap_err();
    let before = stand_in.requests_for(ENCRYPT);
    let began = subject.clock().now();
    for _ in 0..50 {
        let error = wrap(&subject, 1, SOON).await.unwrap_err();
        assert_eq!(error.code(), Code::Intermediary, "the cause is told without asking: {error}");
    }
    let asked = stand_in.requests_for(ENCRYPT) - before;
    let most = 3 + subject.clock().now().since(began).as_secs();
    assert!(asked <= most, "{asked} requests for 50 calls");
    stand_in.set_fault(None);
    crate::stand_in::heals(&subject).await;
}

#[tokio::test]
async fn a_refusal_because_of_a_requests_content_opens_no_breaker() {
    let (subject, stand_in) = subject(Manner::default()).await;
    let wrapped = wrap(&subject, 1, SOON).await.unwrap();
    for _ in 0..20 {
        stand_in.fail_next(1, DECRYPT, &Fault::error(400, "cipher: message authentication failed"));
        assert_eq!(unwrap(&subject, &wrapped).await.unwrap_err().code(), Code::CiphertextRejected);
        stand_in.fail_next(2, DECRYPT, &Fault::error(500, "internal error"));
        assert_eq!(unwrap(&subject, &wrapped).await.unwrap_err().code(), Code::KeeperFailed);
    }
    let before = stand_in.requests_for(READ);
    subject.kek.describe(within(&subject, SOON)).await.unwrap();
    assert_eq!(stand_in.requests_for(READ) - before, 1);
}
