//! Tests the results of `Status` and `Encrypt` after sequences of successes, refusals and outages.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::{
    super::{
        key::KekVersion,
        key_id::{KeyIdentity, Lineage},
    },
    *,
};

const V1: KekVersion = KekVersion::FIRST;
const START: i64 = 1_000_000;

fn at(seconds: u64) -> Monotonic {
    Monotonic::at(Duration::from_secs(seconds))
}

fn wall(seconds: u64) -> UnixTime {
    UnixTime::from_secs(START).after(Duration::from_secs(seconds))
}

/// Describes a key whose versions were made at these seconds.
fn snapshot(made: &[u64]) -> KekSnapshot {
    let numbers = (1..).filter_map(KekVersion::new);
    KekSnapshot::new(numbers.zip(made.iter().map(|second| wall(*second).into())))
}

/// Knowledge before the first answer.
fn empty() -> Knowledge {
    let identity = KeyIdentity::new(Lineage::of_place("test", &["k"]), 0);
    let ring = KeyRing::new(identity, Duration::from_mins(1), BTreeMap::new());
    Knowledge::new(ring, Duration::from_secs(30))
}

/// Records a read that started and ended at `seconds`.
fn record_read(known: &mut Knowledge, outcome: Result<KekSnapshot, KmsError>, seconds: u64) {
    known.record_read(outcome, at(seconds), at(seconds), wall(seconds));
}

/// Knowledge of a key with one version that was read and proven at 0.
fn healthy() -> Knowledge {
    let mut state = empty();
    record_read(&mut state, Ok(snapshot(&[0])), 0);
    state.evidence.proof_made(V1, Ok(()), at(0));
    state
}

fn failure<T>(code: Code) -> Result<T, KmsError> {
    Err(KmsError::new(code, "test", "none"))
}

/// Orders standings: 0 allows no writes, 1 allows writes during an outage, 2 allows all writes.
fn rank(standing: &Standing) -> u8 {
    match standing {
        Standing::Failing(_) => 0,
        Standing::Ailing(_) => 1,
        Standing::Healthy => 2,
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Success,
    Refusal(Code),
    Outage(Code),
}

fn outcomes() -> impl Strategy<Value = Vec<(u64, bool, Outcome)>> {
    let outcome = prop_oneof![
        2 => Just(Outcome::Success),
        1 => prop::sample::select(&[
            Code::AadNotEnforced,
            Code::KeeperAnswer,
            Code::PermissionDenied,
            Code::KeyMissing,
            Code::VersionNotYet,
        ])
        .prop_map(Outcome::Refusal),
        3 => prop::sample::select(&[
            Code::DeadlineExceeded,
            Code::KeeperFailed,
            Code::KeeperTimeout,
            Code::KeeperUnreachable,
        ])
        .prop_map(Outcome::Outage),
    ];
    vec((0..40_u64, any::<bool>(), outcome), 1..40)
}

proptest! {
    #[test]
    fn no_outage_improves_the_standing_or_lets_a_refused_version_write(events in outcomes()) {
        let mut state = healthy();
        let mut now = 0_u64;
        // Whether a refusal stands that no success has cleared yet: for the metadata, and for the
        // proof.
        let mut refused = [false, false];
        for (wait, is_proof, outcome) in events {
            now = now.saturating_add(wait);
            let policy = OutagePolicy::KeepWriting;
            let (before, _) = state.standing(at(now), policy);
            let result = match outcome {
                Outcome::Success => Ok(()),
                Outcome::Refusal(code) | Outcome::Outage(code) => failure(code),
            };
            if is_proof {
                state.evidence.proof_made(V1, result, at(now));
            } else {
                record_read(&mut state, result.map(|()| snapshot(&[0])), now);
            }
            match outcome {
                Outcome::Success => refused[usize::from(is_proof)] = false,
                Outcome::Refusal(_) => refused[usize::from(is_proof)] = true,
                Outcome::Outage(_) => (),
            }
            let (after, _) = state.standing(at(now), policy);
            if matches!(outcome, Outcome::Outage(_)) {
                prop_assert!(rank(&after) <= rank(&before), "{before:?} became {after:?}");
            }
            if refused != [false, false] {
                prop_assert_eq!(rank(&after), 0, "{:?}", after);
                prop_assert!(state.writer_if_allowed(at(now)).is_err());
            }
        }
    }
}

#[test]
fn an_outage_does_not_hide_an_incident() {
    let mut state = healthy();
    let mut replaced = snapshot(&[0]);
    replaced.versions.insert(V1, wall(5).into());
    record_read(&mut state, Ok(replaced), 15);
    record_read(&mut state, failure(Code::KeeperTimeout), 60);
    let (standing, _) = state.standing(at(60), OutagePolicy::KeepWriting);
    assert_eq!(standing.kind(), (false, Some(Code::KeyReplaced)));
}

#[test]
fn reports_an_outage_before_the_first_answer() {
    let mut state = empty();
    record_read(&mut state, failure(Code::KeeperSealed), 1);
    let (standing, _) = state.standing(at(1), OutagePolicy::KeepWriting);
    assert_eq!(standing.kind(), (false, Some(Code::KeeperSealed)));
}

const V2: KekVersion = KekVersion::FIRST.next();

/// Version 2 was made at 20 and is due at 80. This process first sees it at 100.
fn seen_late() -> Knowledge {
    let mut state = healthy();
    record_read(&mut state, Ok(snapshot(&[0, 20])), 100);
    state
}

#[test]
fn the_previous_version_writes_until_a_late_seen_version_is_proven() {
    let mut state = seen_late();
    let (standing, writer) = state.standing(at(100), OutagePolicy::StopWrites);
    assert_eq!(standing, Standing::Healthy);
    assert_eq!(writer.map(|writer| writer.version), Some(V1));
    assert_eq!(state.writer_if_allowed(at(100)).map(|writer| writer.version), Ok(V1));
    state.evidence.proof_made(V2, Ok(()), at(101));
    assert_eq!(state.writer_if_allowed(at(101)).map(|writer| writer.version), Ok(V2));
    let (_, writer) = state.standing(at(101), OutagePolicy::StopWrites);
    assert_eq!(writer.map(|writer| writer.version), Some(V2));
}

fn writes(known: &Knowledge, seconds: u64) -> Result<KekVersion, Code> {
    known.writer_if_allowed(at(seconds)).map(|writer| writer.version).map_err(|error| error.code())
}

/// Reads the key again at `seconds`, unchanged.
fn reread(known: &mut Knowledge, seconds: u64) {
    record_read(known, Ok(snapshot(&[0, 20])), seconds);
}

#[test]
fn an_unproven_version_never_writes_and_stops_writes_after_a_minute() {
    let mut known = seen_late();
    for second in (102..160).step_by(2) {
        reread(&mut known, second);
        known.evidence.proof_made(V2, failure(Code::KeeperTimeout), at(second));
        assert_eq!(writes(&known, second), Ok(V1), "{second} s");
    }
    reread(&mut known, 160);
    assert_eq!(writes(&known, 160), Err(Code::KeeperTimeout));
    let (standing, _) = known.standing(at(160), OutagePolicy::KeepWriting);
    assert_eq!(standing.kind(), (false, Some(Code::KeeperTimeout)));
}

#[test]
fn a_lagging_node_does_not_stop_the_previous_version() {
    let mut known = seen_late();
    known.evidence.proof_made(V2, failure(Code::VersionNotYet), at(101));
    assert_eq!(writes(&known, 101), Ok(V1));
    reread(&mut known, 160);
    assert_eq!(writes(&known, 160), Err(Code::VersionNotYet));
}

#[test]
fn a_refused_proof_of_the_new_version_stops_all_writes_at_once() {
    for refusal in [Code::AadNotEnforced, Code::KeeperAnswer, Code::PermissionDenied] {
        let mut known = seen_late();
        known.evidence.proof_made(V2, failure(refusal), at(101));
        assert_eq!(writes(&known, 101), Err(refusal));
    }
}

#[test]
fn a_refused_proof_stops_the_previous_version_too() {
    let mut known = seen_late();
    known.evidence.proof_made(V1, failure(Code::AadNotEnforced), at(101));
    assert_eq!(writes(&known, 101), Err(Code::AadNotEnforced));
}

#[test]
fn a_version_below_the_minimum_stops_writing() {
    for (min_decryption, min_encryption) in [(V1, Some(V2)), (V2, None)] {
        let mut known = healthy();
        let mut raised = snapshot(&[0, 20]);
        raised.versions.retain(|version, _| *version >= min_decryption);
        let raised = KekSnapshot { min_decryption, min_encryption, ..raised };
        record_read(&mut known, Ok(raised), 100);
        assert_eq!(writes(&known, 100), Err(Code::ProofPending));
        known.evidence.proof_made(V2, Ok(()), at(101));
        assert_eq!(writes(&known, 101), Ok(V2));
    }
}

#[test]
fn a_fresh_key_and_a_fresh_start_wait_for_their_first_proof() {
    for made in [&[0][..], &[0, 20]] {
        let mut known = empty();
        record_read(&mut known, Ok(snapshot(made)), 100);
        assert_eq!(writes(&known, 100), Err(Code::ProofPending));
    }
}

#[test]
fn an_outage_does_not_count_against_a_new_version() {
    let mut known = seen_late();
    for second in (102..600).step_by(2) {
        record_read(&mut known, failure(Code::KeeperUnreachable), second);
        known.evidence.proof_made(V2, failure(Code::KeeperUnreachable), at(second));
    }
    let (standing, writer) = known.standing(at(600), OutagePolicy::KeepWriting);
    assert_eq!(standing.kind(), (true, Some(Code::KeeperUnreachable)));
    assert_eq!(writer.map(|writer| writer.version), Some(V1));
}

/// The keeper answers reads again before it wraps.
#[test]
fn an_outage_does_not_count_after_its_end() {
    let mut known = seen_late();
    let standing = |known: &mut Knowledge, second: u64| {
        known.evidence.proof_made(V2, failure(Code::KeeperUnreachable), at(second));
        let (standing, writer) = known.standing(at(second), OutagePolicy::KeepWriting);
        (standing.kind().0, writer.map(|writer| writer.version))
    };
    for second in (102..600).step_by(2) {
        record_read(&mut known, failure(Code::KeeperUnreachable), second);
    }
    reread(&mut known, 600);
    assert_eq!(standing(&mut known, 600), (true, Some(V1)));
    // From now on the time counts: 60 s in all.
    reread(&mut known, 658);
    assert_eq!(standing(&mut known, 658), (true, Some(V1)));
    reread(&mut known, 662);
    assert_eq!(standing(&mut known, 662).1, Some(V2));
}

#[test]
fn proves_the_due_version_first_and_then_the_previous_one() {
    let known = seen_late();
    let due = |second| {
        let due = known.due_proofs(Duration::from_secs(50), at(second));
        due.into_iter().map(|(writer, proven)| (writer.version, proven)).collect::<Vec<_>>()
    };
    assert_eq!(due(100), [(V2, false), (V1, true)]);
    assert_eq!(due(40), [(V2, false)], "the proof of version 1 is recent enough");
    assert!(known.is_unsettled(at(100)));
}

proptest! {
    /// Nodes see a version and prove it at random times. All of them end with that version, and
    /// none writes with it before its proof.
    #[test]
    fn all_nodes_end_on_the_same_version(
        nodes in vec((20..200_u64, vec(prop::sample::select(&[
            None,
            Some(Code::KeeperTimeout),
            Some(Code::VersionNotYet),
        ]), 0..60)), 1..4),
    ) {
        for (first_seen, proofs) in nodes {
            let (mut known, mut proven) = (healthy(), false);
            let mut proofs = proofs.into_iter();
            for second in (first_seen..first_seen.max(80).saturating_add(90)).step_by(2) {
                reread(&mut known, second);
                if !proven && let Some(outcome) = proofs.next() {
                    proven |= outcome.is_none();
                    known.evidence.proof_made(V2, outcome.map_or(Ok(()), failure), at(second));
                }
                let (standing, announced) = known.standing(at(second), OutagePolicy::StopWrites);
                let announced = announced.map(|writer| writer.version);
                if let Ok(version) = writes(&known, second) {
                    prop_assert_eq!(Some(version), announced);
                    let expected = if proven && second >= 80 { V2 } else { V1 };
                    prop_assert_eq!(version, expected, "{} s", second);
                    let overdue = second.saturating_sub(first_seen.max(80));
                    prop_assert!(version == V2 || overdue < 60, "{second} s");
                } else {
                    prop_assert_eq!(rank(&standing), 0);
                    prop_assert!(second >= first_seen.max(80).saturating_add(60));
                }
            }
        }
    }
}

fn lowest_to_unwrap(known: &Knowledge) -> KekVersion {
    known.ring.snapshot().unwrap().min_decryption
}

#[test]
fn ignores_a_read_that_started_before_the_newest_answer() {
    let mut known = healthy();
    let mut raised = snapshot(&[0, 20]);
    raised.versions.remove(&V1);
    raised.min_decryption = V2;
    known.record_read(Ok(raised), at(100), at(101), wall(101));
    let older =
        [Ok(snapshot(&[0, 20])), failure(Code::PermissionDenied), failure(Code::KeeperTimeout)];
    for outcome in older {
        let update = known.record_read(outcome, at(99), at(102), wall(102));
        assert!(update.changes.is_empty() && update.warnings.is_none(), "{update:?}");
        assert_eq!(lowest_to_unwrap(&known), V2);
        assert!(known.evidence.metadata_verdict(at(102)).is_ok());
        assert!(!known.evidence.is_failing());
    }
    known.record_read(Ok(snapshot(&[0, 20])), at(102), at(103), wall(103));
    assert_eq!(lowest_to_unwrap(&known), V1, "the minimum was lowered again");
}

#[test]
fn a_read_that_started_before_a_refusal_does_not_clear_it() {
    let mut known = healthy();
    known.record_read(failure(Code::KeyMissing), at(100), at(100), wall(100));
    known.record_read(Ok(snapshot(&[0])), at(99), at(101), wall(101));
    let verdict = known.evidence.metadata_verdict(at(101)).map_err(|error| error.code());
    assert_eq!(verdict, Err(Code::KeyMissing));
}

#[test]
fn accepts_a_read_that_started_before_an_outage() {
    let mut known = healthy();
    known.record_read(failure(Code::KeeperUnreachable), at(100), at(100), wall(100));
    known.record_read(Ok(snapshot(&[0])), at(99), at(101), wall(101));
    assert!(!known.evidence.is_failing());
    assert!(known.is_read_since(at(99)) && !known.is_read_since(at(100)));
}

/// A lagging node of the keeper reports the old minimum versions. With them an older version would
/// write, but its proof was forgotten.
#[test]
fn the_writer_stays_while_an_older_version_waits_for_its_proof() {
    let mut known = healthy();
    let raised = KekSnapshot { min_encryption: Some(V2), ..snapshot(&[0, 90]) };
    record_read(&mut known, Ok(raised), 100);
    known.evidence.proof_made(V2, Ok(()), at(100));
    assert_eq!(known.note_writer(at(100)).map(|writer| writer.version), Some(V2));
    record_read(&mut known, Ok(snapshot(&[0, 90])), 110);
    assert_eq!(writes(&known, 110), Ok(V2));
    known.evidence.proof_made(V1, Ok(()), at(112));
    assert_eq!(writes(&known, 112), Ok(V1), "version 2 is due at 150 s");
}

/// A lagging node of the keeper reports the old minimum versions. The version that the raised
/// minimum requires is not proven yet.
#[test]
fn a_proven_version_writes_again_when_a_raised_minimum_is_lowered_before_the_next_proof() {
    let mut known = healthy();
    let raised = KekSnapshot { min_encryption: Some(V2), ..snapshot(&[0, 90]) };
    record_read(&mut known, Ok(raised), 100);
    assert_eq!(known.note_writer(at(100)).map(|writer| writer.version), Some(V2));
    assert_eq!(writes(&known, 100), Err(Code::ProofPending));
    record_read(&mut known, Ok(snapshot(&[0, 90])), 101);
    assert_eq!(writes(&known, 101), Ok(V1));
}

#[test]
fn tells_for_how_long_a_version_has_written() {
    let mut known = healthy();
    let writer = known.note_writer(at(5)).unwrap();
    assert_eq!(known.writing_for(&writer, at(65)), Duration::from_mins(1));
    record_read(&mut known, failure(Code::KeeperUnreachable), 70);
    assert_eq!(known.note_writer(at(70)), None);
    assert_eq!(
        known.writing_for(&writer, at(70)),
        Duration::from_secs(65),
        "an outage is no change"
    );
    let raised = KekSnapshot { min_encryption: Some(V2), ..snapshot(&[0, 90]) };
    record_read(&mut known, Ok(raised), 100);
    known.evidence.proof_made(V2, Ok(()), at(100));
    let second = known.writer(at(101)).unwrap();
    assert_eq!(known.writing_for(&second, at(101)), Duration::ZERO, "it was not noted yet");
    assert_eq!(known.note_writer(at(102)), Some(second.clone()));
    assert_eq!(known.writing_for(&second, at(103)), Duration::from_secs(1));
    assert_eq!(known.writing_for(&writer, at(103)), Duration::ZERO);
}
