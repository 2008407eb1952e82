//! Calls on a runtime of one thread, such as `serve` has, beside a task that ticks: a call that
//! blocks the thread stops the ticks, and with them Status and the probes of the program.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, ThreadId},
    time::Duration,
};

use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    Subject,
    calls::{END_BY_DEADLINE, LATE_MAX, Method, Sample},
};
use crate::{domain::error::KmsError, ports::clock::Clock};

const TICK: Duration = Duration::from_millis(10);

/// The longest pause between two ticks that is taken for a short computation. The time for which the
/// system gave the thread no processor does not count.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// How often a call is made whose pause was too long. A call that blocks does so each time, and a
/// machine that gave the thread no time does not.
const TRIES: u32 = 5;

const REMEDY: &str = "the program has one thread, which also answers Status and the probes; \
    move what blocks into `tokio::task::spawn_blocking`";

/// Measures the pauses between the ticks of a task on the runtime on which it was started.
struct Ticker {
    ticks: Arc<Mutex<Ticks>>,
    task: JoinHandle<()>,
}

impl Ticker {
    fn start() -> Self {
        let ticks = Arc::new(Mutex::new(Ticks { last: Moment::now(), longest: Duration::ZERO }));
        let own = Arc::clone(&ticks);
        let task = tokio::spawn(async move {
            loop {
                sleep(TICK).await;
                tick(&own);
            }
        });
        Self { ticks, task }
    }

    /// Returns the longest pause since the last call of this method. A pause that still lasts counts.
    fn take_longest(&self) -> Duration {
        let longest = tick(&self.ticks);
        self.ticks.lock().unwrap_or_else(PoisonError::into_inner).longest = Duration::ZERO;
        longest
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn tick(ticks: &Mutex<Ticks>) -> Duration {
    let Ticks { last, longest } = &mut *ticks.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Moment::now();
    *longest = now.since(last).max(*longest);
    *last = now;
    *longest
}

struct Ticks {
    last: Moment,
    /// The longest pause so far.
    longest: Duration,
}

/// A time on a thread.
struct Moment {
    thread: ThreadId,
    time: Instant,
    /// For how long the thread has waited for a processor since it began.
    unscheduled: Duration,
}

impl Moment {
    fn now() -> Self {
        // proc(5): the second number, in nanoseconds. Zero where the system does not count it.
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let waited = text.split(' ').nth(1).and_then(|nanos| nanos.parse().ok());
        Self {
            thread: thread::current().id(),
            time: Instant::now(),
            unscheduled: Duration::from_nanos(waited.unwrap_or_default()),
        }
    }

    /// Returns the time since `earlier`, without the time for which the thread waited for a processor.
    fn since(&self, earlier: &Self) -> Duration {
        let passed = self.time.duration_since(earlier.time);
        if self.thread != earlier.thread {
            return passed;
        }
        passed.saturating_sub(self.unscheduled.saturating_sub(earlier.unscheduled))
    }
}

/// A call that the thread makes, and the way back for the report.
struct Order {
    method: Method,
    time: Duration,
    reply: oneshot::Sender<Report>,
}

/// The outcome of a call, and the longest pause that it made.
struct Report {
    /// `None` where the call did not end.
    outcome: Option<Result<(), KmsError>>,
    pause: Duration,
}

/// A thread with a runtime of its own. It ends with this value, unless a call blocks it.
pub(super) struct OneThread {
    orders: mpsc::Sender<Order>,
    /// Ticks on the runtime on which the subject was made. Where that runtime has one thread, this
    /// notices tasks of the keeper that block it.
    outside: Ticker,
}

impl OneThread {
    /// Starts the thread, which calls the keeper of `subject` with `sample`.
    pub(super) fn start(subject: &dyn Subject, sample: &Sample) -> Self {
        let (orders, queue) = mpsc::channel(1);
        let (clock, sample) = (subject.clock(), sample.clone());
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        thread::spawn(move || {
            runtime.block_on(carry_out(queue, clock, sample));
            runtime.shutdown_background();
        });
        Self { orders, outside: Ticker::start() }
    }

    /// Calls `method` with `time` to do it, and gives its outcome. A call that blocks the thread,
    /// or does not end, is a panic.
    pub(super) async fn call(&self, method: Method, time: Duration) -> Result<(), KmsError> {
        let mut shortest = Duration::MAX;
        for _ in 0..TRIES {
            let (reply, report) = oneshot::channel();
            let order = Order { method, time, reply };
            assert!(self.orders.send(order).await.is_ok(), "the thread takes orders");
            self.outside.take_longest();
            let Ok(report) = timeout(time + LATE_MAX + LATE_MAX, report).await else {
                panic!("{method} blocks its thread and does not end; {REMEDY}");
            };
            let Ok(Report { outcome, pause }) = report else {
                panic!("{method} panicked on a runtime of one thread; {REMEDY}");
            };
            let Some(outcome) = outcome else {
                panic!("{method} went on for {LATE_MAX:?} after its deadline; {END_BY_DEADLINE}");
            };
            shortest = shortest.min(pause.max(self.outside.take_longest()));
            if shortest <= PAUSE_MAX {
                return outcome;
            }
        }
        panic!("{method} blocks a thread for {shortest:?} at once; {REMEDY}");
    }
}

async fn carry_out(mut orders: mpsc::Receiver<Order>, clock: Arc<dyn Clock>, sample: Sample) {
    let ticker = Ticker::start();
    while let Some(Order { method, time, reply }) = orders.recv().await {
        ticker.take_longest();
        let until = clock.now().after(time);
        let outcome = timeout(time + LATE_MAX, sample.call(method, until)).await.ok();
        // Where the rule has failed, nothing receives the report.
        let _unheard = reply.send(Report { outcome, pause: ticker.take_longest() });
    }
}
