//! What `Status` and `Encrypt` make of a row of successes, refusals and outages.

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
const BORN: i64 = 1_000_000;

fn at(seconds: u64) -> Monotonic {
    Monotonic::at(Duration::from_secs(seconds))
}

fn wall(seconds: u64) -> UnixTime {
    UnixTime::from_secs(BORN).after(Duration::from_secs(seconds))
}

/// A key whose versions were made at these seconds, the first one at 0.
fn snapshot(made: &[u64]) -> KekSnapshot {
    let numbers = (1..).filter_map(KekVersion::new);
    let versions: BTreeMap<_, _> = numbers.zip(made.iter().map(|second| wall(*second))).collect();
    KekSnapshot {
        latest: *versions.last_key_value().unwrap().0,
        versions,
        min_decryption: V1,
        min_encryption: None,
        keeper_time: None,
        flaw: None,
        warnings: Vec::new(),
    }
}

fn state() -> State {
    let identity = KeyIdentity::new(Lineage::of_place("test", &["k"]), 0);
    let ring = KeyRing::new(identity, Duration::from_mins(1), BTreeMap::new());
    State {
        ring,
        evidence: Evidence::new(Duration::from_secs(30)),
        warned: Vec::new(),
        told_standing: None,
        told_writer: None,
    }
}

/// A state whose only version has been read and proven at 0.
fn healthy() -> State {
    let mut state = state();
    state.take_in(Ok(snapshot(&[0])), at(0), wall(0));
    state.evidence.proof_made(V1, Ok(()), at(0));
    state
}

fn failure<T>(code: Code) -> Result<T, KmsError> {
    Err(KmsError::new(code, "test", "none"))
}

/// How good a standing is: nothing may be written, only with a reason, or freely.
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
        // The refusals that no success has cleared yet: of the metadata, and of the proof.
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
                state.take_in(result.map(|()| snapshot(&[0])), at(now), wall(now));
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
                prop_assert!(state.may_write(at(now)).is_err());
            }
        }
    }
}

#[test]
fn an_outage_does_not_hide_an_incident() {
    let mut state = healthy();
    let mut replaced = snapshot(&[0]);
    replaced.versions.insert(V1, wall(5));
    state.take_in(Ok(replaced), at(15), wall(15));
    state.take_in(failure(Code::KeeperTimeout), at(60), wall(60));
    let (standing, _) = state.standing(at(60), OutagePolicy::KeepWriting);
    assert_eq!(standing.kind(), (false, Some(Code::KeyReplaced)));
}

#[test]
fn before_the_first_answer_the_outage_is_told() {
    let mut state = state();
    state.take_in(failure(Code::KeeperSealed), at(1), wall(1));
    let (standing, _) = state.standing(at(1), OutagePolicy::KeepWriting);
    assert_eq!(standing.kind(), (false, Some(Code::KeeperSealed)));
}
