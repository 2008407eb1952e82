//! Whether anything is wrong, and from when on everything must work.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

struct Sky {
    /// Faults under way.
    faults: usize,
    /// How many there ever were.
    number: u64,
    last_end: Instant,
    works_from: Instant,
    /// The longest after the end of a fault at which a call that failed was begun.
    worst: Duration,
}

pub struct Weather(Mutex<Sky>);

/// The weather at one moment.
#[derive(Clone, Copy)]
pub struct Outlook {
    pub begun: Instant,
    number: u64,
    calm: bool,
    must_work: bool,
}

impl Weather {
    pub fn new(works_from: Instant) -> Self {
        let last_end = Instant::now();
        let worst = Duration::ZERO;
        Self(Mutex::new(Sky { faults: 0, number: 0, last_end, works_from, worst }))
    }

    pub fn fault_begins(&self) {
        let mut sky = self.0.lock().unwrap();
        sky.faults += 1;
        sky.number += 1;
    }

    /// A fault ends; all works `recovery` later.
    pub fn fault_ends(&self, recovery: Duration) {
        let mut sky = self.0.lock().unwrap();
        sky.faults -= 1;
        sky.last_end = Instant::now();
        sky.works_from = sky.works_from.max(sky.last_end + recovery);
    }

    pub fn outlook(&self) -> Outlook {
        let (sky, begun) = (self.0.lock().unwrap(), Instant::now());
        let calm = sky.faults == 0;
        Outlook { begun, number: sky.number, calm, must_work: calm && begun >= sky.works_from }
    }

    /// Whether a call that was begun under `outlook` may have failed by now.
    pub fn excuses(&self, outlook: Outlook) -> bool {
        let mut sky = self.0.lock().unwrap();
        let disturbed = sky.number != outlook.number;
        if outlook.calm && !disturbed {
            sky.worst = sky.worst.max(outlook.begun - sky.last_end);
        }
        disturbed || !outlook.must_work
    }

    /// The longest that a recovery took.
    pub fn worst(&self) -> Duration {
        self.0.lock().unwrap().worst
    }
}
