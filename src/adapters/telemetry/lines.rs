//! A bounded queue of lines with a thread that writes them. A reader that stalls costs lines, and
//! never the time of the code that logs.

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

/// How much may wait to be written, in bytes.
const BYTES_MAX: usize = 1 << 20;

/// What a waiting line counts beside its text.
const LINE_OVERHEAD: usize = 64;

/// Takes lines without waiting and has them written by a thread of its own.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Shared>);

/// Starts the thread that writes.
type Writer = Box<dyn FnOnce(&Arc<Shared>) -> io::Result<()> + Send>;

#[derive(Default)]
struct Shared {
    /// Until the thread is started.
    writer: Mutex<Option<Writer>>,
    queue: Mutex<Queue>,
    pushed: Condvar,
    drained: Condvar,
    lost: AtomicU64,
    /// Whether the last line could not be written.
    failing: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Vec<u8>>,
    /// Of the lines that wait and of the one that is being written.
    bytes: usize,
    /// Lines that were dropped and not told of yet.
    untold: u64,
}

impl Lines {
    /// A queue whose lines wait until [`Lines::begin`] or [`Lines::flush`] starts a thread `name`,
    /// which gives each line to `sink`. Once at least half of the queue is free again after lines
    /// were dropped, the thread calls `tell` with their number.
    pub fn queued(
        name: &str,
        sink: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
        tell: impl Fn(u64) + Send + 'static,
    ) -> Self {
        let name = name.to_owned();
        let writer = move |shared: &Arc<Shared>| {
            let writer = Arc::clone(shared);
            drop(thread::Builder::new().name(name).spawn(move || writer.write(sink, &tell))?);
            Ok(())
        };
        let writer: Writer = Box::new(writer);
        Self(Arc::new(Shared { writer: Mutex::new(Some(writer)), ..Shared::default() }))
    }

    /// Starts the thread that writes, unless it was started before.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn begin(&self) -> io::Result<()> {
        let writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        writer.map_or(Ok(()), |writer| writer(&self.0))
    }

    /// Queues `line`, or drops it if more than 1 MiB would wait. Returns whether it is queued.
    #[expect(clippy::must_use_candidate, reason = "losses are counted")]
    pub fn push(&self, line: &[u8]) -> bool {
        let size = size(line);
        let mut queue = self.0.queue();
        let bytes = queue.bytes.saturating_add(size);
        if bytes > BYTES_MAX {
            queue.untold = queue.untold.saturating_add(1);
            self.0.lose();
            return false;
        }
        queue.bytes = bytes;
        queue.waiting.push_back(line.to_vec());
        drop(queue);
        self.0.pushed.notify_one();
        true
    }

    /// Whether the last line could not be written.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.0.failing.load(Ordering::Relaxed)
    }

    /// Waits until all lines are written, for at most `bound`. Returns whether they are.
    pub fn flush(&self, bound: Duration) -> bool {
        if self.begin().is_err() {
            return false;
        }
        let left = |queue: &mut Queue| queue.bytes > 0;
        let waited = self.0.drained.wait_timeout_while(self.0.queue(), bound, left);
        let (_queue, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    /// The number of lines that were dropped or could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("lost", &self.lost).finish_non_exhaustive()
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

    fn lose(&self) {
        let _before = self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// The writer's thread.
    fn write(&self, mut sink: impl FnMut(&[u8]) -> io::Result<()>, tell: &impl Fn(u64)) {
        loop {
            let line = self.next();
            let failed = sink(&line).is_err();
            self.failing.store(failed, Ordering::Relaxed);
            if failed {
                self.lose();
            }
            // Told first: what `tell` pushes is then waited for by a flush.
            match self.untold(size(&line)) {
                0 => (),
                dropped => tell(dropped),
            }
            self.written(size(&line));
        }
    }

    fn next(&self) -> Vec<u8> {
        let mut queue = self.queue();
        loop {
            if let Some(line) = queue.waiting.pop_front() {
                return line;
            }
            // What a burst took is given back.
            queue.waiting.shrink_to(64);
            queue = self.pushed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes the number of dropped lines, if there is room again once `size` bytes are written.
    fn untold(&self, size: usize) -> u64 {
        let mut queue = self.queue();
        if queue.bytes.saturating_sub(size) > BYTES_MAX / 2 {
            return 0;
        }
        std::mem::take(&mut queue.untold)
    }

    fn written(&self, size: usize) {
        let mut queue = self.queue();
        queue.bytes = queue.bytes.saturating_sub(size);
        if queue.bytes == 0 {
            self.drained.notify_all();
        }
    }
}

fn size(line: &[u8]) -> usize {
    line.len().saturating_add(LINE_OVERHEAD)
}

/// A sink that writes to what `output` is open for, without the standard library's lock.
///
/// # Errors
/// When the descriptor cannot be duplicated.
pub(super) fn file_sink(
    output: impl AsFd,
) -> io::Result<impl FnMut(&[u8]) -> io::Result<()> + Send + 'static> {
    let mut file = File::from(output.as_fd().try_clone_to_owned()?);
    Ok(move |line: &[u8]| write_all(&mut file, line))
}

/// Writes all of `line`, also where whoever started this process made the descriptor non-blocking.
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
