//! Where the lines of this process go: a queue and a thread for each place.

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

/// How long the end of the process waits for each outlet that still has lines to write.
pub const FLUSH: Duration = Duration::from_secs(1);

/// A place for lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlet {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The socket of journald; a line is an entry in its native protocol.
    Journal,
}

/// Whether threads are not started yet.
static HELD: AtomicBool = AtomicBool::new(false);

static STDOUT: OnceLock<Lines> = OnceLock::new();
static STDERR: OnceLock<Lines> = OnceLock::new();
static JOURNAL: OnceLock<Lines> = OnceLock::new();

impl Outlet {
    const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Journal];

    /// The queue of this outlet. The first call starts its thread, unless [`hold`] was called.
    ///
    /// # Errors
    /// When the thread cannot be started, or what it writes to cannot be opened.
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
        if !HELD.load(Ordering::Acquire) {
            lines.begin()?;
        }
        Ok(lines)
    }

    fn queue(self, sink: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static) -> Lines {
        let outlet = self.as_str();
        let tell = move |dropped| {
            warn!(outlet, dropped, "log lines were dropped: they came faster than they were read");
        };
        Lines::queued(outlet, sink, tell)
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

/// Starts no thread until [`release`]: lines wait in their queues. For a process that restricts
/// itself first.
pub fn hold() {
    HELD.store(true, Ordering::Release);
}

/// Starts the threads of all outlets that are open, and from now on of each one that is opened.
///
/// # Errors
/// When a thread cannot be started.
pub fn release() -> io::Result<()> {
    HELD.store(false, Ordering::Release);
    open_ones().try_for_each(Lines::begin)
}

/// Waits until the lines of all outlets are written, for at most `bound` for each outlet in use.
/// To be called before the process ends, in a panic hook too.
pub fn flush(bound: Duration) {
    for lines in open_ones() {
        let _written = lines.flush(bound);
    }
}

/// The number of lines that were dropped since the start, at all outlets.
#[must_use]
pub fn dropped() -> u64 {
    open_ones().map(Lines::lost).fold(0, u64::saturating_add)
}

fn open_ones() -> impl Iterator<Item = &'static Lines> {
    Outlet::ALL.into_iter().filter_map(|outlet| outlet.cell().get())
}
