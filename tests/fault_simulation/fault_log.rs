//! Records the begin and the end of faults, and decides whether a call may fail.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

struct State {
    /// The number of present faults.
    faults: usize,
    /// The number of all faults so far.
    number: u64,
    last_end: Instant,
    works_from: Instant,
    /// The longest time from the end of a fault to the begin of a call that failed.
    worst: Duration,
}

pub struct FaultLog(Mutex<State>);

/// The state at the begin of a call.
#[derive(Clone, Copy)]
pub struct Moment {
    pub begun: Instant,
    number: u64,
    calm: bool,
    must_work: bool,
}

impl FaultLog {
    pub fn new(works_from: Instant) -> Self {
        let last_end = Instant::now();
        let worst = Duration::ZERO;
        Self(Mutex::new(State { faults: 0, number: 0, last_end, works_from, worst }))
    }

    pub fn fault_begins(&self) {
        let mut state = self.0.lock().unwrap();
        state.faults += 1;
        state.number += 1;
    }

    /// Records the end of a fault. Everything must work `recovery` later.
    pub fn fault_ends(&self, recovery: Duration) {
        let mut state = self.0.lock().unwrap();
        state.faults -= 1;
        state.last_end = Instant::now();
        state.works_from = state.works_from.max(state.last_end + recovery);
    }

    pub fn now(&self) -> Moment {
        let (state, begun) = (self.0.lock().unwrap(), Instant::now());
        let calm = state.faults == 0;
        Moment { begun, number: state.number, calm, must_work: calm && begun >= state.works_from }
    }

    /// Returns whether a call that began at `moment` may fail.
    pub fn excuses(&self, moment: Moment) -> bool {
        let mut state = self.0.lock().unwrap();
        let disturbed = state.number != moment.number;
        if moment.calm && !disturbed {
            state.worst = state.worst.max(moment.begun - state.last_end);
        }
        disturbed || !moment.must_work
    }

    /// Returns the longest recovery.
    pub fn worst(&self) -> Duration {
        self.0.lock().unwrap().worst
    }
}
