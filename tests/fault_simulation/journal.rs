//! What happened, for those who replay a seed, and what must not have happened.

use std::{
    fmt::Arguments,
    sync::{Mutex, PoisonError},
    thread,
};

use tokio::time::Instant;

use super::invariants::Violation;

pub struct Journal {
    talks: bool,
    started: Instant,
    lines: Mutex<Vec<String>>,
    violations: Mutex<Vec<String>>,
}

impl Journal {
    pub fn new(talks: bool) -> Self {
        Self {
            talks,
            started: Instant::now(),
            lines: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    pub fn say(&self, what: Arguments<'_>) {
        let line = format!("{:>9.3} s  {what}", self.started.elapsed().as_secs_f64());
        if self.talks {
            eprintln!("{line}");
        }
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// Takes note that an invariant does not hold.
    pub fn violated(&self, rule: &Violation, what: Arguments<'_>) {
        self.say(format_args!("VIOLATED {}: {what}", rule.name));
        let text = format!("{}: {what} (the rule is there because {})", rule.name, rule.because);
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// All that was said, in order: two runs of a seed say the same.
    pub fn trace(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What did not hold, if anything.
    pub fn verdict(&self) -> Option<String> {
        self.violations.lock().unwrap().first().cloned()
    }
}

/// Held by every task: one that panics is not to pass for a fault of the network.
pub struct Alarm(pub std::sync::Arc<Journal>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.violated(&super::invariants::NO_PANIC, format_args!("a task panicked"));
        }
    }
}

/// FNV-1a.
pub fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
