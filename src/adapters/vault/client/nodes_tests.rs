//! Tests of the state machine of the endpoints, by example and with random sequences of events.

use proptest::prelude::*;

use super::*;

const OLD: KekVersion = KekVersion::FIRST;
const NEW: KekVersion = KekVersion::FIRST.next();

fn nodes(count: usize) -> Nodes {
    let address = |n: usize| VaultAddress::parse(&format!("https://vault-{n}:8200")).unwrap();
    Nodes::new((0..count).map(address).collect())
}

fn at(millis: u64) -> Monotonic {
    Monotonic::at(Duration::from_millis(millis))
}

fn failure() -> KmsError {
    KmsError::new(Code::KeeperUnreachable, "scripted", "none")
}

fn verified(count: usize) -> Nodes {
    let mut nodes = nodes(count);
    (0..count).for_each(|n| nodes.learn(n, Learned::OfCluster("ours"), at(0), 0.0));
    nodes
}

#[test]
fn a_stale_endpoint_is_reported_once_after_a_minute() {
    let mut nodes = verified(2);
    for (second, expected) in [(0, false), (59, false), (60, true), (61, false), (600, false)] {
        let now = at(second * 1_000);
        nodes.learn(1, Learned::Showed { latest: OLD, newest: NEW }, now, 0.0);
        nodes.learn(0, Learned::Showed { latest: NEW, newest: NEW }, now, 0.0);
        let changes = nodes.take_changes();
        let stale = changes.iter().any(|change| matches!(change, NodeChange::Stale(_, Some(_))));
        assert_eq!(stale, expected, "after {second} s");
    }
    let shown = nodes.view()[1].last_error.clone().expect("it is shown");
    assert_eq!(shown.code(), Code::VersionNotYet);
    assert!(shown.cause().contains("https://vault-1:8200"), "{shown}");
    assert_eq!(nodes.view()[0].last_error, None);
}

#[test]
fn an_endpoint_that_caught_up_is_not_stale() {
    let mut nodes = verified(2);
    let mut shows = |latest, second: u64| {
        nodes.learn(1, Learned::Showed { latest, newest: NEW }, at(second * 1_000), 0.0);
        nodes.view()[1].last_error.clone()
    };
    assert_eq!(shows(OLD, 0), None);
    assert_eq!(shows(NEW, 1), None);
    assert_eq!(shows(OLD, 60), None, "it lags anew");
    assert!(shows(OLD, 120).is_some());
    assert_eq!(shows(NEW, 121), None);
}

/// Regression: another failure once made a foreign endpoint receive tokens again.
#[test]
fn a_foreign_endpoint_stays_foreign_whatever_fails_or_answers_after_that() {
    let mut nodes = verified(2);
    nodes.learn(1, Learned::OfCluster("another"), at(1), 0.0);
    for learned in [
        Learned::Failed(&failure()),
        Learned::Answered { as_any: true },
        Learned::Healthy,
        Learned::Failed(&failure()),
    ] {
        nodes.learn(1, learned, at(2), 0.0);
        assert_eq!(nodes.serving(at(2)).collect::<Vec<_>>(), [0]);
        assert!(
            nodes.choose(Wanted::This(1), at(2)).is_err(),
            "a redirect does not choose it either"
        );
        assert_eq!(nodes.view()[1].last_error.as_ref().unwrap().code(), CLUSTER_FOREIGN);
    }
    nodes.learn(1, Learned::OfCluster("ours"), at(3), 0.0);
    assert!(nodes.choose(Wanted::This(1), at(3)).is_ok(), "its own health answer clears it");
}

#[test]
fn reports_an_outage_of_the_cluster_before_a_foreign_endpoint() {
    let mut nodes = verified(2);
    nodes.learn(0, Learned::OfCluster("theirs"), at(0), 0.0);
    (0..3).for_each(|_| nodes.learn(1, Learned::Failed(&failure()), at(1), 0.0));
    let why = |nodes: &mut Nodes| nodes.choose(Wanted::Any(&[]), at(2)).unwrap_err().code();
    assert_eq!(why(&mut nodes), Code::KeeperUnreachable);
    nodes.learn(1, Learned::OfCluster("theirs"), at(2), 0.0);
    assert_eq!(why(&mut nodes), CLUSTER_FOREIGN);
}

#[test]
fn a_foreign_endpoint_is_checked_as_often_as_one_that_does_not_serve() {
    let mut nodes = verified(2);
    nodes.learn(0, Learned::OfCluster("theirs"), at(0), 0.0);
    assert!(nodes.choose_for_health(0, false, at(1)));
    assert!(!nodes.choose_for_health(1, false, at(1)));
    nodes.learn(0, Learned::OfCluster("ours"), at(2), 0.0);
    assert!(!nodes.choose_for_health(0, false, at(3)));
}

#[test]
fn a_single_endpoint_needs_no_verification_and_several_do() {
    assert!(!nodes(1).is_unverified(0));
    let mut nodes = nodes(2);
    assert!(nodes.is_unverified(0));
    nodes.learn(0, Learned::OfCluster("ours"), at(0), 0.0);
    assert!(!nodes.is_unverified(0));
    // Another server may have the same address after an outage.
    (0..3).for_each(|_| nodes.learn(0, Learned::Failed(&failure()), at(0), 0.0));
    assert!(nodes.is_unverified(0));
}

#[test]
fn returns_the_error_of_the_preferred_endpoint_if_none_serves() {
    let mut nodes = verified(2);
    for n in [0, 1] {
        (0..3).for_each(|_| nodes.learn(n, Learned::Failed(&failure()), at(0), 0.0));
    }
    let error = nodes.choose(Wanted::Any(&[]), at(1)).unwrap_err();
    assert_eq!(error, failure());
}

const COUNT: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Choose(Vec<usize>),
    ChooseOther(Vec<usize>),
    ChooseThis(usize),
    Check(usize),
    Answered(usize, bool),
    Failed(usize),
    Healthy(usize),
    OfCluster(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..COUNT;
    let some = || prop::collection::vec(0..COUNT, 0..3);
    prop_oneof![
        1 => (0_u64..4_000).prop_map(Step::Wait),
        1 => some().prop_map(Step::Choose),
        1 => some().prop_map(Step::ChooseOther),
        1 => node().prop_map(Step::ChooseThis),
        1 => node().prop_map(Step::Check),
        1 => (node(), any::<bool>()).prop_map(|(n, any)| Step::Answered(n, any)),
        4 => node().prop_map(Step::Failed),
        1 => node().prop_map(Step::Healthy),
        2 => (node(), any::<bool>()).prop_map(|(n, ours)| Step::OfCluster(n, ours)),
    ]
}

/// A simple model of the same rules: which endpoints reported another cluster last, and which
/// endpoint last answered a request that could go to any.
#[derive(Default)]
struct Model {
    foreign: [bool; COUNT],
    preferred: usize,
}

proptest! {
    #[test]
    fn never_chooses_a_foreign_endpoint_or_one_with_an_open_breaker(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let (mut nodes, mut model, mut now) = (nodes(COUNT), Model::default(), 0);
        nodes.learn(0, Learned::OfCluster("ours"), at(0), 0.0);
        for step in steps {
            let admits = |nodes: &Nodes, n: usize| nodes.all[n].breaker.admits(at(now));
            let serves: Vec<_> =
                (0..COUNT).filter(|n| admits(&nodes, *n) && !model.foreign[*n]).collect();
            match step {
                Step::Wait(millis) => now += millis,
                Step::Choose(avoided) => match nodes.choose(Wanted::Any(&avoided), at(now)) {
                    Ok(chosen) => {
                        prop_assert!(serves.contains(&chosen));
                        let fresh = serves.iter().any(|n| !avoided.contains(n));
                        prop_assert!(!fresh || !avoided.contains(&chosen));
                        let first = serves.contains(&model.preferred)
                            && !avoided.contains(&model.preferred);
                        prop_assert!(!first || chosen == model.preferred);
                        // A breaker that is not closed admits one request and then none.
                        let closed = nodes.all[chosen].breaker.state() == BreakerState::Closed;
                        prop_assert!(closed || !admits(&nodes, chosen));
                    }
                    Err(_) => prop_assert!(serves.is_empty()),
                },
                Step::ChooseOther(avoided) => {
                    let chosen = nodes.choose(Wanted::Other(&avoided), at(now)).ok();
                    let fresh = serves.iter().any(|n| !avoided.contains(n));
                    prop_assert_eq!(chosen.is_some(), fresh);
                    prop_assert!(chosen.is_none_or(|n| serves.contains(&n) && !avoided.contains(&n)));
                }
                Step::ChooseThis(n) => {
                    let chosen = nodes.choose(Wanted::This(n), at(now));
                    prop_assert_eq!(chosen.is_ok(), !model.foreign[n]);
                }
                Step::Check(n) => {
                    let admitted = admits(&nodes, n);
                    prop_assert_eq!(nodes.choose_for_health(n, true, at(now)), admitted);
                }
                Step::Answered(n, as_any) => {
                    nodes.learn(n, Learned::Answered { as_any }, at(now), 0.0);
                    if as_any {
                        model.preferred = n;
                    }
                    prop_assert_eq!(nodes.view()[n].breaker, "closed");
                }
                Step::Failed(n) => nodes.learn(n, Learned::Failed(&failure()), at(now), 0.0),
                Step::Healthy(n) => nodes.learn(n, Learned::Healthy, at(now), 0.0),
                Step::OfCluster(n, ours) => {
                    let id = if ours { "ours" } else { "another" };
                    nodes.learn(n, Learned::OfCluster(id), at(now), 0.0);
                    model.foreign[n] = !ours;
                }
            }
            for n in 0..COUNT {
                prop_assert_eq!(nodes.foreign(n).is_some(), model.foreign[n]);
                prop_assert_eq!(nodes.view()[n].preferred, n == model.preferred);
            }
        }
    }
}
