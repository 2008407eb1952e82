//! Tests of the plan by example, and against a model with random results and times of logins.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::adapters::vault::vocabulary::WRAPPING_TOKEN_USED;

/// The middle of the range, which leaves the wait after a failure unchanged.
const CHANCE: f64 = 0.5;

fn at(secs: u64) -> Monotonic {
    Monotonic::at(Duration::from_secs(secs))
}

fn digest(number: u8) -> CredentialDigest {
    CredentialDigest::NONE.with(&number.to_string())
}

fn error(code: Code) -> KmsError {
    KmsError::new(code, "scripted", "none")
}

/// Returns a plan that recorded the events `what` at these seconds.
fn plan(what: &[(u64, LoginEvent)]) -> LoginPlan {
    let mut plan = LoginPlan::default();
    for (secs, learned) in what {
        plan.learn(learned.clone(), at(*secs), CHANCE);
    }
    plan
}

/// Returns when the plan, asked at `secs`, allows a login with these digests.
fn due(plan: &LoginPlan, digests: &[CredentialDigest], secs: u64) -> Monotonic {
    match plan.next(digests, at(secs)) {
        Next::Now(_) => at(secs),
        Next::NotBefore { at, .. } => at,
    }
}

#[test]
fn the_first_login_is_due_at_once() {
    assert_eq!(LoginPlan::default().next(&[digest(1)], at(0)), Next::Now(0));
}

#[test]
fn refused_material_is_held_back_for_an_hour_and_other_material_is_not() {
    let plan = plan(&[(0, LoginEvent::Refused(digest(1), error(Code::LoginRefused)))]);
    assert_eq!(due(&plan, &[digest(1)], 5), at(3_780), "an hour plus half of a tenth");
    assert_eq!(plan.next(&[digest(2)], at(5)), Next::Now(0));
    assert_eq!(plan.next(&[digest(2)], at(0)), Next::NotBefore { at: at(1), why: None });
    let Next::NotBefore { why: Some(why), .. } = plan.next(&[digest(1)], at(5)) else {
        panic!("it is not held back")
    };
    assert!(why.cause().contains("a new one at once"), "{why}");
}

#[test]
fn older_material_is_used_while_the_preferred_one_is_held_back() {
    let plan = plan(&[(0, LoginEvent::Refused(digest(1), error(WRAPPING_TOKEN_USED)))]);
    assert_eq!(plan.next(&[digest(1), digest(2)], at(1)), Next::Now(1));
}

/// Three nodes that each try two destroyed secret IDs lock the role.
#[test]
fn older_material_is_not_used_during_an_outage_of_the_keeper() {
    for (code, from) in
        [(Code::KeeperUnreachable, 3), (Code::KeeperSealed, 3), (Code::Intermediary, 2)]
    {
        let failed = || LoginEvent::Failed(digest(1), error(code));
        let plan = plan(&[(0, failed()), (1, failed())]);
        assert_eq!(due(&plan, &[digest(1), digest(2)], 2), at(from), "{code}");
    }
    let mut plan = LoginPlan::default();
    for secs in 0..u64::from(OUTAGE_FAILURES_MAX) {
        let failed = LoginEvent::Failed(digest(1), error(Code::KeeperFailed));
        plan.learn(failed, at(5 * secs), CHANCE);
    }
    let last = 5 * u64::from(OUTAGE_FAILURES_MAX - 1);
    assert_eq!(plan.next(&[digest(1), digest(2)], at(last + 1)), Next::Now(1));
}

#[test]
fn other_failures_are_tried_again_ever_more_slowly_and_within_a_minute() {
    for (code, waits) in [
        (Code::KeeperUnreachable, [1, 2, 4, 5, 5, 5]),
        (Code::KeeperAnswer, [1, 2, 4, 8, 16, 30]),
        (Code::LoginRefused, [5, 10, 20, 40, 60, 60]),
        (Code::CredentialUnreadable, [60; 6]),
    ] {
        let (mut plan, mut now) = (LoginPlan::default(), 0);
        for wait in waits {
            plan.learn(LoginEvent::Failed(digest(1), error(code)), at(now), CHANCE);
            assert_eq!(due(&plan, &[digest(1)], now), at(now + wait), "{code}");
            now += wait;
        }
    }
}

#[test]
fn a_login_that_succeeds_forgets_the_failures_before_it() {
    let failed = || LoginEvent::Failed(digest(1), error(Code::KeeperAnswer));
    let before = plan(&[(0, failed()), (1, failed()), (3, failed())]);
    assert_eq!(due(&before, &[digest(1)], 3), at(7));
    let after =
        plan(&[(0, failed()), (1, failed()), (3, LoginEvent::Granted(digest(1))), (9, failed())]);
    assert_eq!(due(&after, &[digest(1)], 9), at(10));
}

#[test]
fn rejected_tokens_are_replaced_ever_more_slowly_until_one_lasts() {
    let (mut plan, mut now) = (LoginPlan::default(), 0);
    for spacing in [1, 10, 20, 40, 60, 60] {
        plan.learn(LoginEvent::Granted(digest(1)), at(now), CHANCE);
        plan.learn(LoginEvent::Rejected, at(now), CHANCE);
        assert_eq!(due(&plan, &[digest(1)], now), at(now + spacing));
        now += spacing;
    }
    plan.learn(LoginEvent::Granted(digest(1)), at(now), CHANCE);
    plan.learn(LoginEvent::Rejected, at(now + 60), CHANCE);
    plan.learn(LoginEvent::Granted(digest(1)), at(now + 60), CHANCE);
    plan.learn(LoginEvent::Rejected, at(now + 60), CHANCE);
    assert_eq!(due(&plan, &[digest(1)], now + 60), at(now + 61));
}

/// A login can be refused while the token of the login before it is still used.
#[test]
fn the_end_of_a_token_does_not_shorten_the_hour_of_its_refused_material() {
    for end in [LoginEvent::Rejected, LoginEvent::Ended] {
        let plan = plan(&[
            (0, LoginEvent::Granted(digest(1))),
            (0, LoginEvent::Rejected),
            (2, LoginEvent::Granted(digest(1))),
            (4, LoginEvent::Refused(digest(1), error(Code::LoginRefused))),
            (5, end),
        ]);
        assert!(due(&plan, &[digest(1)], 5) >= at(4).after(REFUSED_FOR));
    }
}

/// The result of a login, or the end of the token that it gives.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Refused,
    Failed(Code),
    /// The token is rejected after so many seconds.
    Rejected(u16),
    /// The token lasts so many seconds.
    Lasts(u16),
}

/// One step: these materials exist, some time passes, and a login that is due takes a given time
/// and has a given outcome.
#[derive(Clone, Debug)]
struct Step {
    materials: Vec<u8>,
    passes: Duration,
    takes: Duration,
    outcome: Outcome,
    chance: f64,
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    let codes = [
        Code::CredentialUnreadable,
        Code::KeeperAnswer,
        Code::KeeperUnreachable,
        Code::KeeperTimeout,
        Code::KeyMissing,
        Code::LoginRefused,
    ];
    prop_oneof![
        2 => Just(Outcome::Refused),
        4 => proptest::sample::select(codes.to_vec()).prop_map(Outcome::Failed),
        3 => (0..30_u16).prop_map(Outcome::Rejected),
        1 => (1..2_000_u16).prop_map(Outcome::Lasts),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let materials = prop_oneof![
        4 => Just(vec![1]),
        1 => Just(vec![2]),
        1 => Just(vec![2, 1]),
        1 => Just(vec![3]),
    ];
    // Most steps wait until the time that the plan names. The others wait a random time.
    let passes = prop_oneof![4 => Just(u64::MAX), 1 => 0..90_000_u64];
    let step = (materials, passes, 0..40_000_u64, outcomes(), 0.0..1.0).prop_map(
        |(materials, passes, takes, outcome, chance)| Step {
            materials,
            passes: Duration::from_millis(passes),
            takes: Duration::from_millis(takes),
            outcome,
            chance,
        },
    );
    vec(step, 1..60)
}

/// The model: the last events of one material.
#[derive(Clone, Copy, Debug, Default)]
struct Past {
    refused: Option<Monotonic>,
    failed: Option<Monotonic>,
    /// When a token that was later rejected was granted.
    rejected: Option<Monotonic>,
    /// The last failure was an outage of the keeper.
    is_away: bool,
}

impl Past {
    /// Returns the earliest and the latest time at which the material may be sent again.
    fn bounds(self) -> (Monotonic, Monotonic) {
        let start = Monotonic::default();
        let later = |since: Option<Monotonic>, wait| since.map_or(start, |at| at.after(wait));
        let refused = later(self.refused, REFUSED_FOR);
        let most = [
            later(self.refused, REFUSED_FOR.mul_f64(1.1)),
            later(self.failed, FAILED_FOR_MAX),
            later(self.rejected, REJECTED_INTERVAL_MAX),
        ];
        (refused, most.into_iter().max().unwrap_or(start))
    }
}

#[derive(Default)]
struct Model {
    past: [Past; 4],
    ended: Option<Monotonic>,
}

impl Model {
    /// Checks the plan's decision at `now` against the rules.
    fn check(&self, plan: &LoginPlan, materials: &[u8], now: Monotonic) {
        let digests: Vec<_> = materials.iter().map(|number| digest(*number)).collect();
        let spaced = self.ended.map_or(now, |ended| ended.after(LOGIN_INTERVAL)).max(now);
        let past = |number: u8| self.past[usize::from(number)];
        match plan.next(&digests, now) {
            Next::Now(index) => {
                let (earliest, _) = past(materials[index]).bounds();
                assert!(now >= earliest, "refused material is sent within its hour");
                assert!(spaced <= now, "logins are not spaced");
            }
            Next::NotBefore { at, why } => {
                assert!(at > now);
                let away = materials.iter().position(|number| past(*number).is_away);
                let counted = &materials[..away.map_or(materials.len(), |away| away + 1)];
                let latest = counted.iter().map(|number| past(*number).bounds().1).min();
                let latest = latest.unwrap().max(spaced);
                assert!(at <= latest, "{at:?} is later than {latest:?}: {why:?}");
                assert!(
                    matches!(plan.next(&digests, at), Next::Now(_)),
                    "the login is not due at the time that the plan named"
                );
            }
        }
    }
}

/// Runs one login with material `number`, which is due now. Returns when its token ended.
fn play(
    plan: &mut LoginPlan,
    model: &mut Model,
    step: &Step,
    number: u8,
    now: Monotonic,
) -> Monotonic {
    let ended = now.after(step.takes);
    let past = &mut model.past[usize::from(number)];
    model.ended = Some(ended);
    let granted = |plan: &mut LoginPlan, past: &mut Past| {
        *past = Past::default();
        plan.learn(LoginEvent::Granted(digest(number)), ended, step.chance);
    };
    match step.outcome {
        Outcome::Refused => {
            (past.refused, past.is_away) = (Some(ended), false);
            let learned = LoginEvent::Refused(digest(number), error(Code::LoginRefused));
            plan.learn(learned, ended, step.chance);
            ended
        }
        Outcome::Failed(code) => {
            let is_away = [Code::KeeperUnreachable, Code::KeeperTimeout].contains(&code);
            *past = Past { failed: Some(ended), is_away, ..Past::default() };
            plan.learn(LoginEvent::Failed(digest(number), error(code)), ended, step.chance);
            ended
        }
        Outcome::Rejected(secs) => {
            granted(plan, past);
            (past.rejected, past.is_away) = (Some(ended), true);
            let rejected = ended.after(Duration::from_secs(secs.into()));
            plan.learn(LoginEvent::Rejected, rejected, step.chance);
            rejected
        }
        Outcome::Lasts(secs) => {
            granted(plan, past);
            let worn = ended.after(Duration::from_secs(secs.into()));
            plan.learn(LoginEvent::Ended, worn, step.chance);
            worn
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_plan_keeps_the_rules_of_the_model(steps in steps()) {
        let (mut plan, mut model, mut now) = (LoginPlan::default(), Model::default(), at(0));
        for step in steps {
            let digests: Vec<_> = step.materials.iter().map(|number| digest(*number)).collect();
            model.check(&plan, &step.materials, now);
            match plan.next(&digests, now) {
                Next::Now(index) => {
                    now = play(&mut plan, &mut model, &step, step.materials[index], now);
                }
                Next::NotBefore { at, .. } => now = at.min(now.after(step.passes)),
            }
        }
    }

    /// Every token is rejected within seconds. Some logins are quick, some are slow, and some fail.
    #[test]
    fn a_storm_of_rejected_tokens_costs_few_logins(
        logins in vec((0..9_000_u64, 0..3_000_u64, 0.0..1.0), 30),
    ) {
        let (mut plan, mut now, mut granted) = (LoginPlan::default(), at(0), Vec::new());
        for (lasts, takes, chance) in logins {
            now = now.after(Duration::from_millis(takes));
            if takes > 2_500 {
                plan.learn(LoginEvent::Failed(digest(1), error(Code::KeeperFailed)), now, chance);
            } else {
                plan.learn(LoginEvent::Granted(digest(1)), now, chance);
                granted.push(now);
                now = now.after(Duration::from_millis(lasts));
                plan.learn(LoginEvent::Rejected, now, chance);
            }
            if let Next::NotBefore { at, .. } = plan.next(&[digest(1)], now) {
                now = at;
            }
        }
        for (index, first) in granted.iter().enumerate() {
            let soon = granted[index..].iter().filter(|at| at.since(*first).as_secs() < 600);
            prop_assert!(soon.count() <= 14, "{:?}", granted);
        }
    }

    #[test]
    fn the_plan_remembers_a_bounded_number_of_materials(numbers in vec(0..200_u8, 0..200)) {
        let mut plan = LoginPlan::default();
        for (secs, number) in (0..).zip(numbers) {
            let learned = LoginEvent::Refused(digest(number), error(Code::LoginRefused));
            plan.learn(learned, at(secs), CHANCE);
            prop_assert!(plan.holds.len() <= HOLDS_MAX);
        }
    }
}
