//! The outlets for the lines of this process. Each outlet has a queue and a thread.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tracing::warn;

use super::{
    journal,
    lines::{Lines, file_sink},
};

/// How long the process waits at its end for each outlet that still has lines to write.
pub const FLUSH: Duration = Duration::from_secs(1);

/// A place that lines are written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlet {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The socket of journald. A line is an entry in the native protocol of journald.
    Journal,
}

/// Whether lines wait because no thread may start yet.
static ON_HOLD: AtomicBool = AtomicBool::new(false);

static STDOUT: OnceLock<Lines> = OnceLock::new();
static STDERR: OnceLock<Lines> = OnceLock::new();
static JOURNAL: OnceLock<Lines> = OnceLock::new();

impl Outlet {
    const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Journal];

    /// Returns the queue of this outlet. The first call starts its thread, unless [`hold`] was
    /// called.
    ///
    /// # Errors
    /// When the thread cannot be started, or the outlet cannot be opened.
    pub fn open(self) -> io::Result<&'static Lines> {
        if let Some(lines) = self.cell().get() {
            return Ok(lines);
        }
        let lines = match self {
            Self::Stdout => self.queue(file_sink(io::stdout())?),
            Self::Stderr => self.queue(file_sink(io::stderr())?),
            Self::Journal => self.queue(journal::sink(journal::SOCKET)?),
        };
        let lines = self.cell().get_or_init(|| lines);
        if !ON_HOLD.load(Ordering::Acquire) {
            lines.begin()?;
        }
        Ok(lines)
    }

    fn queue(self, sink: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static) -> Lines {
        let outlet = self.as_str();
        let report = move |dropped| {
            warn!(outlet, dropped, "log lines were dropped: they came faster than they were read");
        };
        Lines::queued(outlet, sink, report)
    }

    const fn cell(self) -> &'static OnceLock<Lines> {
        match self {
            Self::Stdout => &STDOUT,
            Self::Stderr => &STDERR,
            Self::Journal => &JOURNAL,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Journal => "journal",
        }
    }
}

/// Delays all threads until [`release`]. Lines wait in their queues. A process that restricts
/// itself calls this first, because the restrictions apply only to threads that start after them.
pub fn hold() {
    ON_HOLD.store(true, Ordering::Release);
}

/// Starts the threads of all open outlets. From now on, each outlet starts its thread when it
/// opens.
///
/// # Errors
/// When a thread cannot be started.
pub fn release() -> io::Result<()> {
    ON_HOLD.store(false, Ordering::Release);
    open_outlets().try_for_each(Lines::begin)
}

/// Waits until the lines of all outlets are written, for at most `bound` for each open outlet. Call
/// this before the process ends, also in a panic hook.
pub fn flush(bound: Duration) {
    for lines in open_outlets() {
        let _written = lines.flush(bound);
    }
}

/// Returns the number of lines that all outlets dropped since the start.
#[must_use]
pub fn dropped() -> u64 {
    open_outlets().map(Lines::lost).fold(0, u64::saturating_add)
}

fn open_outlets() -> impl Iterator<Item = &'static Lines> {
    Outlet::ALL.into_iter().filter_map(|outlet| outlet.cell().get())
}
