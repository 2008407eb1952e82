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

const ACCEPTED: Learned<'_> = Learned::Answered { as_any: false, accepted: true };

/// Returns endpoints of one cluster, which accepted a login.
fn verified(count: usize) -> Nodes {
    let mut nodes = nodes(count);
    (0..count).for_each(|n| nodes.learn(n, Learned::OfCluster("ours"), at(0), 0.0));
    nodes.learn(0, ACCEPTED, at(0), 0.0);
    nodes
}

fn credential(number: u8) -> CredentialDigest {
    CredentialDigest::of_bytes(&[number])
}

fn refusal_of_the_pair() -> Refusal {
    Refusal::read(400, None, br#"{"errors":["invalid role or secret ID"]}"#).unwrap()
}

fn refuse(nodes: &mut Nodes, index: usize, number: u8, now: Monotonic) {
    let refusal = refusal_of_the_pair();
    nodes.learn(index, Learned::RefusedLogin(credential(number), &refusal), now, 0.0);
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

/// A login with a wrapped secret ID sends three requests.
#[test]
fn a_search_does_not_wait_for_some_seconds_after_one_that_waited_in_vain() {
    let mut nodes = verified(2);
    assert!(nodes.may_wait_for_active(at(0)));
    nodes.found_none_active(at(0));
    assert!(!nodes.may_wait_for_active(at(2_999)));
    assert!(nodes.may_wait_for_active(at(3_000)), "there may be another election");
}

/// Regression: another failure once made a foreign endpoint receive tokens again.
#[test]
fn a_foreign_endpoint_stays_foreign_whatever_fails_or_answers_after_that() {
    let mut nodes = verified(2);
    nodes.learn(1, Learned::OfCluster("another"), at(1), 0.0);
    for learned in [
        Learned::Failed(&failure()),
        Learned::Answered { as_any: true, accepted: true },
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

/// Regression: the first endpoint that reported its cluster made all others foreign.
#[test]
fn the_cluster_is_the_first_one_that_accepts_a_credential() {
    let mut nodes = nodes(3);
    for (n, id) in [(2, "theirs"), (0, "ours"), (1, "ours")] {
        nodes.learn(n, Learned::OfCluster(id), at(0), 0.0);
    }
    let changes = nodes.take_changes();
    assert!(matches!(changes[..], [NodeChange::Conflict(_)]), "{changes:?}");
    let shown = |nodes: &Nodes| -> Vec<_> {
        nodes.view().into_iter().map(|view| view.last_error.map(|error| error.code())).collect()
    };
    assert_eq!(nodes.serving(at(0)).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(shown(&nodes), [Some(CLUSTER_FOREIGN); 3], "the conflict is shown");
    assert!(nodes.healthy_secondaries(at(0)).is_empty(), "two clusters are not compared");

    nodes.learn(2, Learned::Answered { as_any: true, accepted: false }, at(0), 0.0);
    assert_eq!(nodes.take_changes(), [], "a refusal proves nothing");
    nodes.learn(1, ACCEPTED, at(0), 0.0);
    assert!(matches!(nodes.take_changes()[..], [NodeChange::Foreign(_)]));
    assert_eq!(nodes.serving(at(0)).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(shown(&nodes), [None, None, Some(CLUSTER_FOREIGN)]);
    assert_eq!(nodes.healthy_secondaries(at(0)), [1]);
}

/// Otherwise a wrong secret ID would be sent each minute while one endpoint is down, and lock the
/// role.
#[test]
fn a_refusal_holds_the_credential_back_from_its_cluster_alone() {
    let mut nodes = nodes(3);
    let code = |failure: Option<Failure>| match failure? {
        Failure::Refused(_) => Some("refused"),
        Failure::Disregarded(error) => Some(error.code().as_str()),
        other => panic!("{other:?}"),
    };
    (0..2).for_each(|n| nodes.learn(n, Learned::OfCluster("one"), at(0), 0.0));
    refuse(&mut nodes, 0, 1, at(0));
    let hour = 60 * 60 * 1_000;
    for n in [0, 1] {
        assert_eq!(code(nodes.refusal(n, credential(1), at(hour - 1))), Some("login-refused"));
        assert_eq!(code(nodes.refusal(n, credential(1), at(hour))), None);
        assert_eq!(code(nodes.refusal(n, credential(2), at(0))), None, "it is another one");
    }
    assert_eq!(code(nodes.refusal(2, credential(1), at(0))), None, "its cluster is not known");
    assert_eq!(nodes.serving(at(0)).collect::<Vec<_>>(), [2, 0, 1]);
    nodes.learn(2, Learned::OfCluster("another"), at(1), 0.0);
    assert_eq!(code(nodes.refusal(2, credential(1), at(1))), None);
    nodes.learn(2, Learned::OfCluster("one"), at(2), 0.0);
    assert_eq!(code(nodes.refusal(2, credential(1), at(2))), Some("refused"), "no other cluster");
    nodes.learn(2, ACCEPTED, at(3), 0.0);
    assert_eq!(code(nodes.refusal(0, credential(1), at(3))), None, "the session holds it from now");
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
    Answered(usize, bool, bool),
    Page(usize),
    Failed(usize),
    Healthy(usize),
    OfCluster(usize, usize),
    LogIn(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..COUNT;
    let some = || prop::collection::vec(0..COUNT, 0..3);
    prop_oneof![
        4 => (0_u64..4_000).prop_map(Step::Wait),
        1 => (0_u64..4_000_000).prop_map(Step::Wait),
        1 => some().prop_map(Step::Choose),
        1 => some().prop_map(Step::ChooseOther),
        1 => node().prop_map(Step::ChooseThis),
        1 => node().prop_map(Step::Check),
        1 => (node(), any::<bool>(), prop::bool::weighted(0.3))
            .prop_map(|(n, any, accepted)| Step::Answered(n, any, accepted)),
        1 => node().prop_map(Step::Page),
        4 => node().prop_map(Step::Failed),
        1 => node().prop_map(Step::Healthy),
        4 => (node(), 0..CLUSTERS.len()).prop_map(|(n, id)| Step::OfCluster(n, id)),
        2 => (node(), 0..2_u8).prop_map(|(n, credential)| Step::LogIn(n, credential)),
    ]
}

const CLUSTERS: [&str; 3] = ["one", "two", "three"];

/// A simple model of the same rules: what each endpoint reported last, which cluster first accepted
/// a credential, which endpoint last answered a request that could go to any, and which cluster
/// refused which credential last.
#[derive(Default)]
struct Model {
    reported: [Option<usize>; COUNT],
    ours: Option<usize>,
    preferred: usize,
    refused: std::collections::BTreeMap<(usize, u8), u64>,
}

impl Model {
    fn is_foreign(&self, n: usize) -> bool {
        self.ours.is_some() && self.reported[n].is_some() && self.reported[n] != self.ours
    }

    fn refuses(&self, n: usize) -> bool {
        let clusters = || self.refused.keys().map(|(cluster, _)| *cluster);
        self.ours.is_none() && clusters().any(|cluster| self.reported[n] == Some(cluster))
    }
}

proptest! {
    #[test]
    fn never_chooses_a_foreign_endpoint_or_one_with_an_open_breaker(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let (mut nodes, mut model, mut now) = (nodes(COUNT), Model::default(), 0);
        for step in steps {
            let admits = |nodes: &Nodes, n: usize| nodes.all[n].breaker.admits(at(now));
            let serves: Vec<_> =
                (0..COUNT).filter(|n| admits(&nodes, *n) && !model.is_foreign(*n)).collect();
            match step {
                Step::Wait(millis) => now += millis,
                Step::Choose(avoided) => match nodes.choose(Wanted::Any(&avoided), at(now)) {
                    Ok(chosen) => {
                        prop_assert!(serves.contains(&chosen));
                        let fresh = serves.iter().any(|n| !avoided.contains(n));
                        prop_assert!(!fresh || !avoided.contains(&chosen));
                        let failures = |n: usize| nodes.all[n].rank();
                        let fewest = |n: usize| {
                            serves.iter().all(|other| {
                                avoided.contains(other)
                                    || model.refuses(*other)
                                    || failures(n) <= failures(*other)
                            })
                        };
                        prop_assert!(avoided.contains(&chosen) || model.refuses(chosen) || fewest(chosen));
                        let first = serves.contains(&model.preferred)
                            && !avoided.contains(&model.preferred)
                            && !model.refuses(model.preferred)
                            && fewest(model.preferred);
                        prop_assert!(!first || chosen == model.preferred);
                        let willing =
                            serves.iter().any(|n| !avoided.contains(n) && !model.refuses(*n));
                        prop_assert!(!willing || !model.refuses(chosen));
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
                    prop_assert_eq!(chosen.is_ok(), !model.is_foreign(n));
                }
                Step::Check(n) => {
                    let admitted = admits(&nodes, n);
                    prop_assert_eq!(nodes.choose_for_health(n, true, at(now)), admitted);
                }
                Step::Answered(n, as_any, accepted) => {
                    nodes.learn(n, Learned::Answered { as_any, accepted }, at(now), 0.0);
                    if as_any {
                        model.preferred = n;
                    }
                    if accepted {
                        model.ours = model.ours.or(model.reported[n]);
                    }
                    prop_assert_eq!(nodes.view()[n].breaker, "closed");
                }
                Step::Page(n) => {
                    let before = (nodes.all[n].rank(), nodes.preferred, admits(&nodes, n));
                    let is_probed = nodes.all[n].breaker.state() == BreakerState::HalfOpen;
                    nodes.learn(n, Learned::Page(&failure()), at(now), 0.0);
                    let after = (nodes.all[n].rank(), nodes.preferred, admits(&nodes, n));
                    prop_assert_eq!((before.0, before.1, before.2 || is_probed), after);
                    prop_assert!(nodes.view()[n].last_error.is_some());
                }
                Step::Failed(n) => {
                    let was_foreign = model.is_foreign(n);
                    nodes.learn(n, Learned::Failed(&failure()), at(now), 0.0);
                    if nodes.view()[n].breaker != "closed" && !was_foreign {
                        model.reported[n] = None;
                    }
                }
                Step::Healthy(n) => nodes.learn(n, Learned::Healthy, at(now), 0.0),
                Step::OfCluster(n, id) => {
                    nodes.learn(n, Learned::OfCluster(CLUSTERS[id]), at(now), 0.0);
                    model.reported[n] = Some(id);
                }
                // The endpoint refuses the login, if it is sent.
                Step::LogIn(n, number) => {
                    let cluster = model.reported[n].filter(|_| model.ours.is_none());
                    let before = cluster.and_then(|id| model.refused.get(&(id, number)));
                    let is_held = before.is_some_and(|then| now - then < 3_600_000);
                    let alone = (0..COUNT).all(|other| model.reported[other] == cluster);
                    match nodes.refusal(n, credential(number), at(now)) {
                        Some(Failure::Refused(_)) => prop_assert!(is_held && alone),
                        Some(_) => prop_assert!(is_held && !alone),
                        None => prop_assert!(!is_held),
                    }
                    if let Some(id) = cluster.filter(|_| !is_held) {
                        model.refused.insert((id, number), now);
                    }
                    if !is_held {
                        refuse(&mut nodes, n, number, at(now));
                    }
                }
            }
            for n in 0..COUNT {
                prop_assert_eq!(nodes.foreign(n).is_some(), model.is_foreign(n));
                prop_assert_eq!(nodes.is_unverified(n), model.reported[n].is_none());
                prop_assert_eq!(nodes.view()[n].preferred, n == model.preferred);
            }
        }
    }
}
