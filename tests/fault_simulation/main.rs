//! The whole Vault adapter in virtual time: three plugins, each with its client, session, layers and
//! key service, against a model of a Vault cluster that fails in every way we know of, under the
//! load of three API servers. One seed decides everything.
//!
//! A failure prints its seed: `FAULTS_SEED=<seed> cargo test --features testkit --test fault_simulation` replays
//! it, with a line for each thing that happens. `FAULTS_SEEDS=<number>` sets how many are run.
#![allow(missing_docs, unreachable_pub, clippy::pedantic, clippy::restriction, reason = "tests")]

mod alarms;
#[path = "../simulation/chance.rs"]
mod chance;
mod clock;
mod credential_file;
mod fault_log;
mod faults;
mod invariants;
mod journal;
mod load;
mod model;
mod plants;
mod plugin;
#[path = "../support/seeds.rs"]
mod seeds;
mod simulation;
mod status;
mod telemetry;

use std::time::Duration;

use faults::Fault;
use invariants::*;
use model::{
    cluster::Condition,
    proxy::{Body, Caught, Page},
};
use plants::Plant;
use seeds::number;
use simulation::{Report, Severity, run, run_from_start, run_script};

const SEEDS: u64 = 32;

/// The events that all seeds together must have, named as in `telemetry`.
const EVERYTHING: [&str; 29] = [
    "batched",
    "breaker opened",
    "coalesced",
    "foreign endpoint",
    "internal",
    "legacy read",
    "licence read",
    "logged in",
    "lost",
    "name that moved",
    "not-caught-up",
    "not-yet",
    "page to a login",
    "page to a read",
    "page to a renewal",
    "page to an unwrap",
    "page to another request",
    "quota",
    "redirected",
    "renewed",
    "session failed",
    "stale",
    "told of as stale",
    "unavailable",
    "unsent",
    "wrapping looked up",
    "wrapping lost",
    "wrapping used up",
    "wrong clock",
];

#[test]
fn every_seed_keeps_the_invariants() {
    if let Some(seed) = number("FAULTS_SEED") {
        let verdict = run(seed, true, Severity::default()).verdict;
        assert_eq!(verdict, None, "seed {seed}");
        return;
    }
    let seeds = number("FAULTS_SEEDS").unwrap_or(SEEDS);
    let reports = seeds::each(seeds, "FAULTS_SEED", |seed| {
        let report = run(seed, false, Severity::default());
        if let Some(verdict) = &report.verdict {
            panic!("{verdict}");
        }
        report
    });
    sum_up(&reports);
}

/// Prints the numbers of the seeds (visible with `--nocapture`).
fn sum_up(reports: &[Report]) {
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let worst = reports.iter().map(|report| report.worst_recovery).max();
    let (calls, failed) = (sum(|r| r.tally.calls), sum(|r| r.tally.failed));
    let requests = sum(|r| r.peaks.requests);
    eprintln!("{calls} calls, {failed} failed, {requests} requests, worst recovery {worst:?}");
    let most = |of: fn(&Report) -> usize| reports.iter().map(of).max().unwrap_or(0);
    eprintln!(
        "at most: {} requests for a call, {} at once, {} connections, {} logins and {} requests for them in a minute",
        most(|r| r.peaks.requests_per_call as usize),
        most(|r| r.peaks.in_flight),
        most(|r| r.peaks.connections),
        most(|r| r.peaks.logins_per_minute),
        most(|r| r.peaks.login_requests_per_minute),
    );
    let mut happened = std::collections::BTreeMap::new();
    for (what, times) in reports.iter().flat_map(|report| &report.happened) {
        *happened.entry(what).or_insert(0) += times;
    }
    eprintln!("{happened:?}");
    // The default number of seeds covers every event of the adapter.
    if number("FAULTS_SEEDS").is_none() {
        let missing: Vec<_> = EVERYTHING.iter().filter(|it| !happened.contains_key(it)).collect();
        assert!(missing.is_empty(), "these events never happened: {missing:?}");
    }
}

fn keeps_the_rules(faults: &[(Fault, Duration)]) {
    let replayed = number("FAULTS_SEED");
    for seed in replayed.map_or(0..4, |seed| seed..seed + 1) {
        let verdict = run_script(seed, replayed.is_some(), Severity::default(), faults).verdict;
        assert_eq!(verdict, None, "replay it with FAULTS_SEED={seed}: {faults:?}");
    }
}

/// Outages of each kind, each of some minutes.
#[test]
fn recovers_from_an_outage_of_minutes_in_time() {
    let minutes = Duration::from_mins;
    keeps_the_rules(&[
        (Fault::AllMeet(Condition::Dead), minutes(2)),
        (Fault::AllMeet(Condition::Stalled), minutes(5)),
        (Fault::AllMeet(Condition::Unreachable), minutes(5)),
        (Fault::Quota, minutes(5)),
        (Fault::MountGone, minutes(5)),
        (Fault::FileAway, minutes(5)),
    ]);
}

#[test]
fn logs_in_to_a_restored_role_within_the_stated_wait() {
    keeps_the_rules(&[(Fault::RoleAway, Duration::from_mins(5))]);
}

/// Each node tries the old secret ID from time to time until the operator writes a new one.
#[test]
fn a_secret_id_that_ended_hours_ago_does_not_lock_the_role() {
    keeps_the_rules(&[(Fault::SecretIdDestroyed, Duration::from_hours(3))]);
}

fn keeps_the_rules_from_the_start(foreign: bool, recovery: Duration, faults: &[(Fault, Duration)]) {
    let replayed = number("FAULTS_SEED");
    for seed in replayed.map_or(0..4, |seed| seed..seed + 1) {
        let verdict = run_from_start(seed, replayed.is_some(), foreign, recovery, faults).verdict;
        assert_eq!(verdict, None, "replay it with FAULTS_SEED={seed}: {faults:?}");
    }
}

/// Regression: the first endpoint that answered a health check became the cluster of this process.
#[test]
fn a_foreign_endpoint_that_answers_first_does_not_become_the_cluster() {
    let minutes = Duration::from_mins;
    let alone = [1, 2].map(|node| (Fault::NodeMeets(node, Condition::Dead), minutes(node as u64)));
    keeps_the_rules_from_the_start(true, WAIT_OF_A_LOGIN + RECOVERY, &alone);
    keeps_the_rules_from_the_start(true, WAIT_OF_A_LOGIN + RECOVERY, &[]);
}

/// While the cluster is not known, the refusal of one cluster holds the pair back from that cluster.
#[test]
fn a_wrong_secret_id_at_the_start_does_not_lock_the_role() {
    let (ended, hours) = (Fault::SecretIdDestroyed, Duration::from_hours);
    for foreign in [false, true] {
        let one_away = (Fault::NodeMeets(2, Condition::Dead), hours(1));
        let faults = [(ended, hours(2)), one_away];
        keeps_the_rules_from_the_start(foreign, WAIT_OF_A_LOGIN + RECOVERY, &faults);
    }
}

/// A failure can be examined only if its seed replays it.
#[test]
fn a_seed_that_runs_twice_gives_the_same_trace() {
    for seed in 0..4 {
        let trace = || run(seed, false, Severity::default()).trace;
        let (first, second) = (trace(), trace());
        let differ = first.iter().zip(&second).find(|(one, other)| one != other);
        assert_eq!((differ, first.len()), (None, second.len()), "seed {seed}");
    }
}

/// A rule, the planted fault or limit that breaks it, and the faults of the keeper that this
/// needs.
type Planting<'a> = (&'a Violation, Severity, &'a [(Fault, Duration)]);

/// Each rule can be broken: a planted fault or a stricter limit breaks it, and no other rule
/// first.
#[test]
fn each_planted_fault_breaks_its_rule() {
    let (plant, seconds) = (Severity::plant, Duration::from_secs);
    let forged = Page { caught: Caught::All, status: 403, body: Body::Forged };
    let unreachable = Fault::AllMeet(Condition::Unreachable);
    let outage: &[_] = &[(unreachable, seconds(90))];
    let planted: [Planting<'_>; 23] = [
        (&NO_WRONG_PLAINTEXT, Severity { lies: true, ..Severity::default() }, &[]),
        (&NO_PANIC, plant(Plant::Panic), &[]),
        (&TASKS_LAST, plant(Plant::EndedTask), &[]),
        (&STATUS_IS_FRESH, plant(Plant::StaleStatus), outage),
        (&REFUSAL_STANDS, plant(Plant::StaleStatus), &[(Fault::MountGone, seconds(60))]),
        (&STATUS_IS_KEPT, plant(Plant::OtherKeyId), &[]),
        (&KEY_ID_ADVANCES, plant(Plant::OlderKeyId), &[(Fault::Rotated, seconds(60))]),
        (
            &ONLY_THE_KEEPERS_WORD,
            plant(Plant::ForgedRefusal),
            &[(Fault::Proxied(None, forged), seconds(60))],
        ),
        (&FOREIGN_LEFT_ALONE, plant(Plant::UnsaidForeign), &[(Fault::Foreign(0), seconds(60))]),
        (&NAME_FOLLOWED, plant(Plant::ForgottenMove), &[(Fault::NameMoves(0), seconds(60))]),
        (&ENDS_BY_ITS_DEADLINE, plant(Plant::Late), &[]),
        (&TELLS_ITS_CAUSE, plant(Plant::NoCause), outage),
        (&KEEPS_SECRETS, plant(Plant::ToldSecret), outage),
        (&BLAMES_THE_KEEPER, plant(Plant::Tampering), outage),
        (&FEW_REQUESTS, plant(Plant::Repeated), &[]),
        (&NO_LOGIN_STORM, plant(Plant::ChangingSecretId), &[(Fault::TokensCounted, seconds(180))]),
        (
            &REFUSED_PAIR_RESTS,
            plant(Plant::ForgottenRefusal),
            &[(Fault::SecretIdDestroyed, seconds(600))],
        ),
        (&NO_FALSE_ALARM, plant(Plant::StolenToken), &[]),
        (&NO_LOCKOUT, Severity { lockout_failures: Some(1), ..Severity::default() }, &[]),
        (&FEW_IN_FLIGHT, plant(Plant::ManyLanes), &[]),
        (&FEW_CONNECTIONS, plant(Plant::ManyConnections), &[]),
        (&RECOVERS, Severity { recovery: Some(Duration::ZERO), ..Severity::default() }, &[]),
        (&NOTHING_LEFT, plant(Plant::Leak), &[]),
    ];
    let names = planted.map(|(rule, ..)| rule.name);
    assert_eq!(names, ALL.map(|rule| rule.name), "one for each rule");
    let wrong: Vec<_> = planted
        .iter()
        .filter_map(|(rule, severity, faults)| {
            let found = (0..20).find_map(|seed| match faults {
                [] => run(seed, false, *severity).verdict,
                faults => run_script(seed, false, *severity, faults).verdict,
            });
            let is_found = found.as_ref().is_some_and(|verdict| verdict.starts_with(rule.name));
            (!is_found).then(|| format!("{}: {found:?}", rule.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
