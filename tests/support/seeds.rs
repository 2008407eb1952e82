//! Runs a simulation with many seeds, on all processors.

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// Returns the number in the environment variable `name`, or `None` when it is not set.
pub fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs `run` with each seed below `seeds`, and returns the results in any order. After a panic, no
/// further seed begins, and the test fails with the value of `variable` that replays the seed.
pub fn each<R: Send>(seeds: u64, variable: &str, run: impl Fn(u64) -> R + Sync) -> Vec<R> {
    let (next, results) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let workers = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let Ok(result) = catch_unwind(AssertUnwindSafe(|| run(seed))) else {
                        next.store(seeds, Ordering::Relaxed);
                        panic!("seed {seed} fails; replay it with {variable}={seed}");
                    };
                    results.lock().unwrap().push(result);
                }
            });
        }
    });
    results.into_inner().unwrap()
}
