//! Records the events of a seed for its replay, and the first broken rule.

use std::{
    cell::RefCell,
    env,
    fmt::Arguments,
    panic,
    sync::{Mutex, Once, PoisonError},
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

    /// Adds a request to the trace. `FAULTS_REQUESTS` has it printed too.
    pub fn trace_only(&self, what: Arguments<'_>) {
        let line = format!("{:>9.3} s  {what}", self.started.elapsed().as_secs_f64());
        if self.talks && env::var_os("FAULTS_REQUESTS").is_some() {
            eprintln!("{line}");
        }
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// Records that a rule is broken.
    pub fn violated(&self, rule: &Violation, what: Arguments<'_>) {
        self.say(format_args!("VIOLATED {}: {what}", rule.name));
        let text = format!("{}: {what} (the rule is there because {})", rule.name, rule.because);
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// Returns all lines in order. Two runs of a seed have the same lines.
    pub fn trace(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the broken rule, if there is one.
    pub fn verdict(&self) -> Option<String> {
        self.violations.lock().unwrap().first().cloned()
    }
}

thread_local! {
    /// The messages of the panics of this thread.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Records every panic of this thread from now on, in any task, caught or not.
pub fn note_panics() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            before(info);
        }));
    });
    PANICS.take();
}

/// Returns the panics of this thread since the last call.
pub fn take_panics() -> Vec<String> {
    PANICS.take()
}

/// FNV-1a.
pub fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
