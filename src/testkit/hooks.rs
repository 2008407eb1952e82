//! The rules over the hooks of a subject: what a keeper answers while its server is away or hangs,
//! and after an operator has retired a version or replaced the key.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use super::{
    CALL, Subject,
    calls::{Method, Sample},
    deadline,
    one_thread::OneThread,
    use_cases::Node,
    wall,
};
use crate::{
    domain::{
        error::{Code, KmsError},
        secret::Plaintext,
    },
    ports::kms::KeyManagement as _,
};

/// Says what a hook of a [`Subject`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Hook {
    /// The hook did what it was asked for.
    Done,
    /// The subject has no such hook.
    NotProvided,
    /// The keeper cannot come into such a state, or is not held to the rule. The text says why.
    DoesNotApply(&'static str),
}

/// How long a call may take while the server is away, and while it hangs.
const AWAY: Duration = Duration::from_secs(2);
const HANGING: Duration = Duration::from_millis(300);

/// How long a keeper may need to work again after an outage.
const HEALS: Duration = Duration::from_secs(10);

/// How often it is asked meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Returns whether the hook has done its work. If it has not, a line on standard error, which the
/// test harness does not capture, says which rule is not run.
fn is_done(subject: &dyn Subject, hook: &str, done: Hook, rule: &str) -> bool {
    let reason = match done {
        Hook::Done => return true,
        Hook::NotProvided => "it is not provided",
        Hook::DoesNotApply(reason) => reason,
    };
    let name = subject.name();
    // A closed standard error hides the line, and changes nothing else.
    drop(writeln!(io::stderr(), "NOT RUN: {rule} for {name}: hook `{hook}`: {reason}"));
    false
}

/// While the keeper is away, every method answers with the code of an outage by its deadline. When
/// it is back, every method works again, without a restart.
pub async fn an_outage_is_told_and_ends(subject: &dyn Subject) {
    let sample = Sample::of(subject).await;
    let hook = subject.outage(true).await;
    if !is_done(subject, "outage", hook, "an_outage_is_told_and_ends") {
        return;
    }
    for method in Method::ALL {
        let outcome = sample.call_within(subject, method, AWAY).await;
        assert_outage(method, &outcome);
    }
    assert_eq!(subject.kek().version_of(&sample.ciphertext), Ok(sample.version));
    assert_eq!(subject.outage(false).await, Hook::Done);
    works_again(subject, &sample).await;
}

/// While the keeper's server hangs, every method ends by its deadline with the code of an outage,
/// and blocks no thread. When the server answers again, every method works again.
pub async fn a_call_that_hangs_ends_by_its_deadline(subject: &dyn Subject) {
    let sample = Sample::of(subject).await;
    let hook = subject.hang(true).await;
    if !is_done(subject, "hang", hook, "a_call_that_hangs_ends_by_its_deadline") {
        return;
    }
    let thread = OneThread::start(subject, &sample);
    for method in Method::ALL {
        assert_outage(method, &thread.call(method, HANGING).await);
    }
    assert_eq!(subject.hang(false).await, Hook::Done);
    works_again(subject, &sample).await;
}

fn assert_outage(method: Method, outcome: &Result<(), KmsError>) {
    let is_outage = outcome.as_ref().is_err_and(|error| error.code().is_outage());
    assert!(
        is_outage,
        "{method} must fail with the code of an outage while the keeper is away or hangs: {outcome:?}"
    );
}

async fn works_again(subject: &dyn Subject, sample: &Sample) {
    let clock = subject.clock();
    let until = clock.now().after(HEALS);
    for method in Method::ALL {
        while let Err(error) = sample.call_within(subject, method, AWAY).await {
            assert!(clock.now() < until, "{method} does not work again: {error}");
            clock.sleep(LOOK).await;
        }
    }
}

/// With a retired version nothing is unwrapped or wrapped, and the keeper says why. The other
/// versions are not touched.
pub async fn a_retired_version_is_told_apart(subject: &dyn Subject) {
    let node = Node::start(subject, Duration::ZERO).await;
    let stored = node.write(subject).await;
    let old = Sample::of(subject).await;
    subject.rotate().await;
    let new = Sample::of(subject).await;
    let hook = subject.retire(old.version).await;
    if !is_done(subject, "retire", hook, "a_retired_version_is_told_apart") {
        return;
    }
    let kek = subject.kek();
    let snapshot = kek.describe(deadline(subject)).await.unwrap();
    assert!(
        !snapshot.versions.contains_key(&old.version) || snapshot.min_decryption > old.version,
        "describe shows the retired version as one that unwraps: {snapshot:?}"
    );
    for method in [Method::Unwrap, Method::Wrap] {
        let outcome = old.call_within(subject, method, CALL).await;
        let code = outcome.as_ref().map_err(KmsError::code);
        assert_eq!(code, Err(Code::VersionRetired), "{method} with a retired version: {outcome:?}");
    }
    let results = kek.unwrap_many(&[old.item(), new.item()], deadline(subject)).await;
    let codes: Vec<_> = results.iter().map(|r| r.as_ref().err().map(KmsError::code)).collect();
    assert_eq!(codes, [Some(Code::VersionRetired), None], "unwrap_many: {results:?}");
    for method in Method::ALL {
        new.call_within(subject, method, CALL).await.unwrap();
    }
    node.look().await;
    node.refuses(subject, stored, Code::VersionRetired).await;
    let written = node.write(subject).await;
    assert!(node.read(subject, written).await.is_ok(), "the other versions are read");
}

/// Another key under the same name is an incident: nothing is written, and what the former key
/// wrote is refused. A keeper that refuses the other key itself may go on reading with the former
/// one.
pub async fn a_replaced_key_is_noticed(subject: &dyn Subject) {
    let node = Node::start(subject, Duration::ZERO).await;
    let (before, stored) = (node.key_id(), node.write(subject).await);
    let old = Sample::of(subject).await;
    another_second(subject).await;
    let hook = subject.replace().await;
    if !is_done(subject, "replace", hook, "a_replaced_key_is_noticed") {
        return;
    }
    node.look().await;
    let status = node.kms.status().expect_err("a node is healthy though its key was replaced");
    assert_eq!(status.code(), Code::KeyReplaced, "Status: {status}");
    let seed = Plaintext::new(vec![7; 32]);
    let refused = node.kms.encrypt(seed, deadline(subject)).await;
    let refused = refused.expect_err("a node writes though its key was replaced");
    assert_eq!(refused.code(), Code::KeyReplaced, "Encrypt: {refused}");
    let is_taken = subject.kek().describe(deadline(subject)).await.is_ok();
    let unwrapped = old.call_within(subject, Method::Unwrap, CALL).await;
    let read = node.read(subject, stored).await.map(drop);
    for (call, outcome) in [("unwrap", unwrapped), ("Decrypt", read)] {
        match outcome {
            Err(error) => assert_eq!(error.code(), Code::CiphertextRejected, "{call}: {error}"),
            Ok(()) => assert!(!is_taken, "{call} uses a key that was replaced"),
        }
    }
    if is_taken {
        let newcomer = Node::start(subject, Duration::ZERO).await;
        assert_ne!(newcomer.key_id(), before, "the other key has another key id");
    }
}

/// Waits until the second in which the key was made is over: two keys of one second that are known
/// by their creation times cannot be told apart.
async fn another_second(subject: &dyn Subject) {
    let snapshot = subject.kek().describe(deadline(subject)).await.unwrap();
    let newest = snapshot.versions.values().filter_map(|identity| identity.created()).max();
    let clock = subject.clock();
    while newest.is_some_and(|newest| newest.secs() >= wall().secs()) {
        clock.sleep(LOOK).await;
    }
}
