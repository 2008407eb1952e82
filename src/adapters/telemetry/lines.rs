//! A bounded queue of lines, and a thread that writes them. When the reader stalls, the queue drops
//! lines. The code that logs never waits.

use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};

/// The most bytes that may wait to be written.
const BYTES_MAX: usize = 1 << 20;

/// The bytes that a waiting line counts in addition to its text.
const LINE_OVERHEAD: usize = 64;

/// Queues lines without waiting. A thread of its own writes them.
#[derive(Clone, Debug)]
pub struct Lines {
    shared: Arc<Shared>,
    /// The number of lines of this handle and its clones that were lost.
    lost: Arc<AtomicU64>,
}

/// Starts the thread that writes the lines.
type Writer = Box<dyn FnOnce(&Arc<Shared>) -> io::Result<()> + Send>;

#[derive(Default)]
struct Shared {
    /// `None` once the thread is started.
    writer: Mutex<Option<Writer>>,
    queue: Mutex<Queue>,
    pushed: Condvar,
    drained: Condvar,
    /// Whether the last line could not be written.
    failing: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Line>,
    /// The size of the lines that wait and of the line that is being written.
    bytes: usize,
    /// The number of dropped lines that are not reported yet.
    unreported: u64,
}

#[derive(Debug)]
struct Line {
    text: Vec<u8>,
    /// Counts this line if it is lost.
    lost: Arc<AtomicU64>,
}

impl Lines {
    /// Returns a queue. Lines wait until [`Lines::begin`] or [`Lines::flush`] starts the thread
    /// `name`, which passes each line to `sink`. After lines were dropped, the thread calls
    /// `report` with their number as soon as at least half of the queue is free again.
    pub fn queued(
        name: &str,
        sink: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
        report: impl Fn(u64) + Send + 'static,
    ) -> Self {
        let name = name.to_owned();
        let writer = move |shared: &Arc<Shared>| {
            let writer = Arc::clone(shared);
            drop(thread::Builder::new().name(name).spawn(move || writer.write(sink, &report))?);
            Ok(())
        };
        let writer: Writer = Box::new(writer);
        let shared = Shared { writer: Mutex::new(Some(writer)), ..Shared::default() };
        Self { shared: Arc::new(shared), lost: Arc::default() }
    }

    /// Returns a handle of the same queue that counts its own lost lines.
    #[must_use]
    pub fn counted_apart(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), lost: Arc::default() }
    }

    /// Starts the thread that writes the lines, unless it was started before.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn begin(&self) -> io::Result<()> {
        let writer = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        writer.map_or(Ok(()), |writer| writer(&self.shared))
    }

    /// Queues `line`, or drops it when more than 1 MiB would wait. Returns whether it is queued.
    #[expect(clippy::must_use_candidate, reason = "losses are counted")]
    pub fn push(&self, line: &[u8]) -> bool {
        let size = size(line);
        let mut queue = self.shared.queue();
        let bytes = queue.bytes.saturating_add(size);
        if bytes > BYTES_MAX {
            queue.unreported = queue.unreported.saturating_add(1);
            count(&self.lost);
            return false;
        }
        queue.bytes = bytes;
        let lost = Arc::clone(&self.lost);
        queue.waiting.push_back(Line { text: line.to_vec(), lost });
        drop(queue);
        self.shared.pushed.notify_one();
        true
    }

    /// Returns whether the last line could not be written.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.shared.failing.load(Ordering::Relaxed)
    }

    /// Waits for at most `bound` until all lines are written. Returns whether they are written.
    pub fn flush(&self, bound: Duration) -> bool {
        if self.begin().is_err() {
            return false;
        }
        let left = |queue: &mut Queue| queue.bytes > 0;
        let waited = self.shared.drained.wait_timeout_while(self.shared.queue(), bound, left);
        let (_queue, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    /// Returns the number of lines of this handle and its clones that were dropped or could not be
    /// written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("failing", &self.failing).finish_non_exhaustive()
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes queued lines for ever. This is the body of the thread.
    fn write(&self, mut sink: impl FnMut(&[u8]) -> io::Result<()>, report: &impl Fn(u64)) {
        loop {
            let Line { text, lost } = self.next();
            let failed = sink(&text).is_err();
            self.failing.store(failed, Ordering::Relaxed);
            if failed {
                count(&lost);
            }
            // Reports before this line counts as written, so that a flush also waits for the line
            // that `report` pushes.
            match self.take_unreported(size(&text)) {
                0 => (),
                dropped => report(dropped),
            }
            self.written(size(&text));
        }
    }

    fn next(&self) -> Line {
        let mut queue = self.queue();
        loop {
            if let Some(line) = queue.waiting.pop_front() {
                return line;
            }
            // Frees the memory that a burst of lines needed.
            queue.waiting.shrink_to(64);
            queue = self.pushed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes the number of dropped lines that are not reported yet. Returns 0 while more than half
    /// of the queue is in use. `size` is the size of the line that was just written.
    fn take_unreported(&self, size: usize) -> u64 {
        let mut queue = self.queue();
        if queue.bytes.saturating_sub(size) > BYTES_MAX / 2 {
            return 0;
        }
        std::mem::take(&mut queue.unreported)
    }

    fn written(&self, size: usize) {
        let mut queue = self.queue();
        queue.bytes = queue.bytes.saturating_sub(size);
        if queue.bytes == 0 {
            self.drained.notify_all();
        }
    }
}

fn count(lost: &AtomicU64) {
    let _before = lost.fetch_add(1, Ordering::Relaxed);
}

fn size(line: &[u8]) -> usize {
    line.len().saturating_add(LINE_OVERHEAD)
}

/// Returns a sink that writes to a duplicate of the descriptor of `output`, without the lock of the
/// standard library.
///
/// # Errors
/// When the descriptor cannot be duplicated.
pub(super) fn file_sink(
    output: impl AsFd,
) -> io::Result<impl FnMut(&[u8]) -> io::Result<()> + Send + 'static> {
    let mut file = File::from(output.as_fd().try_clone_to_owned()?);
    Ok(move |line: &[u8]| write_all(&mut file, line))
}

/// Writes all of `line`, also to a non-blocking descriptor: the parent process may have set that
/// mode.
fn write_all(file: &mut File, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match file.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => line = line.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let _ready = poll(&mut [PollFd::new(file, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
