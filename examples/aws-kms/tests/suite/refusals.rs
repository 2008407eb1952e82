//! Checks the code of each failure.

use std::{sync::Arc, time::Duration};

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_kube_kms::keeper::AwsKek;
use aws_sdk_kms::types::KeySpec;
use vault_kube_kms::{
    adapters::system::clock::SystemClock,
    domain::{
        envelope::{AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::KekVersion,
        secret::Plaintext,
        time::Monotonic,
    },
    ports::{
        clock::Clock as _,
        kek::{Kek as _, Unwrap},
    },
};

use crate::server::{Server, credentials};

fn soon() -> Monotonic {
    SystemClock::new().now().after(Duration::from_secs(10))
}

async fn wrap(keeper: &Arc<AwsKek>, version: u32) -> Result<Ciphertext, KmsError> {
    let (seed, unbound) = (Plaintext::new(b"a seed".to_vec()), AssociatedData::none());
    let version = KekVersion::new(version).unwrap();
    let wrapped = keeper.wrap(version, &seed, &unbound, soon()).await;
    wrapped.map(|wrapped| wrapped.ciphertext)
}

async fn unwrap(keeper: &Arc<AwsKek>, ciphertext: &Ciphertext) -> Result<Plaintext, KmsError> {
    let associated_data = &AssociatedData::none();
    keeper.unwrap(Unwrap { ciphertext, associated_data }, soon()).await
}

/// Returns the versions that `describe` shows.
async fn described(keeper: &Arc<AwsKek>) -> Vec<u32> {
    let snapshot = keeper.describe(soon()).await.unwrap();
    snapshot.versions.keys().map(|version| version.get()).collect()
}

fn code<T>(result: Result<T, KmsError>) -> Option<Code> {
    result.err().map(|error| error.code())
}

#[tokio::test]
async fn retires_a_disabled_key_until_it_is_enabled() {
    let server = Server::start().await;
    let keeper = server.keeper().await;
    let sealed = wrap(&keeper, 1).await.unwrap();
    let newer = server.make_key(KeySpec::SymmetricDefault).await;
    server.append(&newer);
    let first = server.first();
    server.admin().await.disable_key().key_id(&first).send().await.unwrap();
    assert_eq!(code(wrap(&keeper, 1).await), Some(Code::VersionRetired));
    assert_eq!(code(unwrap(&keeper, &sealed).await), Some(Code::VersionRetired));
    assert_eq!(code(wrap(&keeper, 2).await), None);
    assert_eq!(described(&keeper).await, [2]);
    server.admin().await.enable_key().key_id(&first).send().await.unwrap();
    assert_eq!(unwrap(&keeper, &sealed).await.unwrap().expose(), b"a seed");
}

#[tokio::test]
async fn retires_a_key_that_waits_for_its_deletion() {
    let server = Server::start().await;
    let keeper = server.keeper().await;
    let second = server.make_key(KeySpec::SymmetricDefault).await;
    server.append(&second);
    let deletion = server.admin().await.schedule_key_deletion().key_id(&second);
    deletion.pending_window_in_days(7).send().await.unwrap();
    assert_eq!(code(wrap(&keeper, 2).await), Some(Code::VersionRetired));
    let snapshot = keeper.describe(soon()).await.unwrap();
    assert_eq!((described(&keeper).await, snapshot.latest.get()), (vec![1], 2));
}

#[tokio::test]
async fn describes_a_flaw_when_no_key_is_enabled() {
    let server = Server::start().await;
    server.admin().await.disable_key().key_id(server.first()).send().await.unwrap();
    let flaw = server.keeper().await.describe(soon()).await.unwrap().flaw.unwrap();
    assert_eq!(flaw.code(), Code::KeyUnusable);
}

const NOWHERE: &str = "arn:aws:kms:eu-west-1:111122223333:key/00000000-0000-0000-0000-000000000000";

#[tokio::test]
async fn describes_a_flaw_for_a_wrong_arn_in_the_last_line() {
    let server = Server::start().await;
    server.append(NOWHERE);
    let keeper = server.keeper().await;
    let flaw = keeper.describe(soon()).await.unwrap().flaw.unwrap();
    assert!(flaw.code() == Code::KeyUnusable && flaw.cause().contains(NOWHERE), "{flaw}");
    assert_eq!(described(&keeper).await, [1]);
}

#[tokio::test]
async fn retires_a_deleted_key() {
    let server = Server::start().await;
    std::fs::write(server.list(), format!("{NOWHERE}\n{}\n", server.first())).unwrap();
    let keeper = server.keeper().await;
    assert_eq!(described(&keeper).await, [2]);
    assert_eq!(code(wrap(&keeper, 1).await), Some(Code::VersionRetired));
    assert_eq!(code(wrap(&keeper, 2).await), None);
}

#[tokio::test]
async fn describes_a_flaw_for_a_key_that_cannot_bind() {
    let server = Server::start().await;
    server.append(&server.make_key(KeySpec::Rsa2048).await);
    let flaw = server.keeper().await.describe(soon()).await.unwrap().flaw.unwrap();
    assert_eq!(flaw.code(), Code::KeyUnusable);
}

#[tokio::test]
async fn rejects_wrong_credentials() {
    let server = Server::start().await;
    for wrong in [("AKIDEXAMPLE", "another secret"), ("AKIDANOTHER", "a secret")] {
        let keeper = server.keeper_with(credentials(wrong.0, wrong.1)).await;
        assert_eq!(code(keeper.describe(soon()).await), Some(Code::LoginRefused), "{wrong:?}");
        let error = wrap(&keeper, 1).await.unwrap_err();
        assert_eq!(error.code(), Code::LoginRefused);
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn reports_absent_credentials() {
    let server = Server::start().await;
    let none = ProfileFileCredentialsProvider::builder().profile_name("none of that name").build();
    let keeper = server.keeper_with(none).await;
    assert_eq!(code(keeper.describe(soon()).await), Some(Code::CredentialUnreadable));
}

#[tokio::test]
async fn works_again_after_an_outage() {
    let server = Server::start().await;
    let keeper = server.keeper().await;
    let sealed = wrap(&keeper, 1).await.unwrap();
    server.stop();
    assert_eq!(code(keeper.describe(soon()).await), Some(Code::KeeperUnreachable));
    assert_eq!(code(unwrap(&keeper, &sealed).await), Some(Code::KeeperUnreachable));
    server.start_again();
    assert_eq!(unwrap(&keeper, &sealed).await.unwrap().expose(), b"a seed");
}

#[tokio::test]
async fn maps_each_error_of_aws_to_its_code() {
    let server = Server::start().await;
    let keeper = server.keeper().await;
    for (status, error, expected) in [
        (400, "AccessDeniedException", Code::PermissionDenied),
        (400, "ExpiredTokenException", Code::LoginRefused),
        (400, "IncorrectKeyException", Code::CiphertextRejected),
        (400, "KMSInvalidStateException", Code::VersionRetired),
        (400, "ThrottlingException", Code::KeeperOverloaded),
        (400, "LimitExceededException", Code::KeeperOverloaded),
        (500, "KMSInternalException", Code::KeeperFailed),
        (503, "DependencyTimeoutException", Code::KeeperFailed),
        (400, "ANewException", Code::KeeperAnswer),
    ] {
        server.fault(Some((status, error)));
        let failure = wrap(&keeper, 1).await.unwrap_err();
        assert_eq!(failure.code(), expected, "{error}: {failure}");
        assert!(!failure.to_string().contains("as the test asked"), "{failure}");
    }
    server.fault(None);
    assert_eq!(code(wrap(&keeper, 1).await), None);
}

#[tokio::test]
async fn reports_a_server_that_never_answers_as_a_timeout() {
    let server = Server::start().await;
    server.fault(Some((0, "none")));
    let keeper = server.keeper().await;
    let error = wrap(&keeper, 1).await.unwrap_err();
    assert_eq!(error.code(), Code::KeeperTimeout, "{error}");
}

/// The id connects an entry of the audit log with one of `CloudTrail`.
#[tokio::test]
async fn returns_the_id_of_each_request() {
    let server = Server::start().await;
    let keeper = server.keeper().await;
    let (seed, unbound) = (Plaintext::new(b"a seed".to_vec()), AssociatedData::none());
    let wrapped = keeper.wrap(KekVersion::FIRST, &seed, &unbound, soon()).await.unwrap();
    let wrapping = wrapped.request_id.unwrap();
    let unwrapping = unwrap(&keeper, &wrapped.ciphertext).await.unwrap();
    assert!(unwrapping.request_id().is_some_and(|id| id.len() == 36 && *id != wrapping));
}

#[tokio::test]
async fn names_the_line_that_is_not_an_arn() {
    let server = Server::start().await;
    let keeper = server.keeper().await;
    server.append("alias/kubernetes");
    let error = keeper.describe(soon()).await.unwrap_err();
    assert_eq!(error.code(), Code::KeyUnusable);
    assert!(error.cause().contains("alias/kubernetes"), "{error}");
}
