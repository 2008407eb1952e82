//! Runs futures in virtual time, one after the other, in an order that depends only on the
//! futures.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
};

use super::keeper::World;

type Ready = Arc<Mutex<VecDeque<u64>>>;

/// Puts its task into the queue of tasks to poll.
struct Wakes {
    task: u64,
    ready: Ready,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap().push_back(self.task);
    }
}

struct Task {
    node: usize,
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Waker,
}

/// The tasks of all nodes.
#[derive(Default)]
pub struct Executor {
    tasks: BTreeMap<u64, Task>,
    ready: Ready,
    begun: u64,
    /// Paused nodes, with the tasks that were woken during the pause.
    still: BTreeMap<usize, BTreeSet<u64>>,
}

impl Executor {
    pub fn spawn(&mut self, node: usize, future: impl Future<Output = ()> + 'static) {
        self.begun += 1;
        let (task, ready) = (self.begun, self.ready.clone());
        let waker = Waker::from(Arc::new(Wakes { task, ready }));
        waker.wake_by_ref();
        self.tasks.insert(task, Task { node, future: Box::pin(future), waker });
    }

    /// Begins a call to `node`.
    pub fn call<T: 'static>(
        &mut self,
        node: usize,
        now_ms: u64,
        future: impl Future<Output = T> + 'static,
    ) -> Call<T> {
        let answer = Rc::new(RefCell::new(None));
        let slot = answer.clone();
        self.spawn(node, async move {
            let answer = future.await;
            *slot.borrow_mut() = Some(answer);
        });
        Call { answer, began_ms: now_ms }
    }

    /// Ends all tasks of `node`.
    pub fn end(&mut self, node: usize) {
        self.tasks.retain(|_, task| task.node != node);
    }

    pub fn stand_still(&mut self, node: usize) {
        self.still.entry(node).or_default();
    }

    pub fn stands_still(&self, node: usize) -> bool {
        self.still.contains_key(&node)
    }

    pub fn go_on(&mut self, node: usize) {
        let woken = self.still.remove(&node).unwrap_or_default();
        self.ready.lock().unwrap().extend(woken);
    }

    /// Moves time to `until_ms`, and runs all tasks that are due until then.
    pub fn run_until(&mut self, world: &Mutex<World>, until_ms: u64) {
        loop {
            self.run_ready();
            let mut world = world.lock().unwrap();
            match world.timers.first_entry() {
                Some(timer) if timer.key().0 <= until_ms => {
                    let ((at, _), waker) = timer.remove_entry();
                    world.now_ms = world.now_ms.max(at);
                    waker.wake();
                }
                _ => {
                    world.now_ms = until_ms;
                    return;
                }
            }
        }
    }

    fn run_ready(&mut self) {
        loop {
            let Some(id) = self.ready.lock().unwrap().pop_front() else { return };
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            if let Some(woken) = self.still.get_mut(&task.node) {
                woken.insert(id);
            } else if task.future.as_mut().poll(&mut Context::from_waker(&task.waker)).is_ready() {
                self.tasks.remove(&id);
            }
        }
    }
}

/// A running call.
pub struct Call<T> {
    answer: Rc<RefCell<Option<T>>>,
    pub began_ms: u64,
}

/// The result of a call.
pub enum Progress<T> {
    Answered(T),
    Waiting(Call<T>),
    /// The node ended first.
    Lost,
}

impl<T> Call<T> {
    pub fn progress(self) -> Progress<T> {
        let answer = self.answer.borrow_mut().take();
        match answer {
            Some(answer) => Progress::Answered(answer),
            None if Rc::strong_count(&self.answer) == 1 => Progress::Lost,
            None => Progress::Waiting(self),
        }
    }
}

/// Waits until the world's time is `until_ms`.
pub struct Until {
    pub world: Arc<Mutex<World>>,
    pub until_ms: u64,
}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut world = self.world.lock().unwrap();
        if world.now_ms >= self.until_ms {
            return Poll::Ready(());
        }
        world.wake_at(self.until_ms, context.waker().clone());
        Poll::Pending
    }
}
