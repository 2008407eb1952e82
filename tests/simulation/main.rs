//! A whole control plane in virtual time: three nodes, a keeper whose replicas lag and whose key is
//! rotated, restored, made anew, archived and cut off, and three API servers reduced to their
//! rules. One seed decides everything.
//!
//! A failure prints its seed: `SIMULATION_SEED=<seed> cargo test --test simulation` replays it,
//! with a line for each thing that happens. `SIMULATION_SEEDS=<number>` sets how many are run; for
//! very many, add `--profile bench`.
#![allow(missing_docs, unreachable_pub, clippy::pedantic, clippy::restriction, reason = "tests")]

mod api_server;
mod chance;
mod control_plane;
mod executor;
mod keeper;
mod node;
mod plants;
#[path = "../support/seeds.rs"]
mod seeds;
mod told;

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
};

use control_plane::{ControlPlane, ToldTo};
use seeds::number;

const SEEDS: u64 = 10_000;

#[test]
fn every_seed_keeps_the_invariants() {
    if let Some(seed) = number("SIMULATION_SEED") {
        ControlPlane::new(seed, ToldTo::StandardError).run();
        return;
    }
    let seeds = number("SIMULATION_SEEDS").unwrap_or(SEEDS);
    seeds::each(seeds, "SIMULATION_SEED", |seed| {
        ControlPlane::new(seed, ToldTo::Nobody).run();
    });
}

/// The simulation itself must be able to fail: with replicas that lag for longer than the rotation
/// delay, nodes meet versions that their replica does not have.
#[test]
fn detects_a_delay_that_does_not_cover_the_lag() {
    let found = (0..200).any(|seed| {
        let run = || ControlPlane::with_lag(seed, 200_000).run();
        catch_unwind(AssertUnwindSafe(run)).is_err()
    });
    assert!(found, "200 seeds found nothing wrong with a lag of 200 s");
}

/// Each rule can be broken: a planted fault breaks it, and no other rule first.
#[test]
fn each_planted_fault_breaks_its_rule() {
    let wrong: Vec<_> = plants::ALL
        .iter()
        .filter_map(|(plant, rule)| {
            let broken = (0..20).find_map(|seed| {
                let run = || ControlPlane::planted(seed, *plant).run();
                let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
                Some(panic.downcast::<String>().map_or_else(|_| String::new(), |text| *text))
            });
            let is_found = broken.as_ref().is_some_and(|text| text.contains(rule));
            (!is_found).then(|| format!("{plant:?}: {broken:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A failure can be examined only if its seed replays it.
#[test]
fn a_seed_that_runs_twice_gives_the_same_trace() {
    for seed in 0..20 {
        let trace = || ControlPlane::new(seed, ToldTo::Trace(RefCell::default())).run();
        let (first, second) = (trace(), trace());
        assert!(first.len() > 600, "the trace has no line for each second");
        let differ = first.iter().zip(&second).find(|(one, other)| one != other);
        assert_eq!((differ, first.len()), (None, second.len()), "seed {seed}");
    }
}
