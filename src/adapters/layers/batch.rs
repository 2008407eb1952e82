//! What a keeper is asked at once is bounded, and unwraps that wait are sent together where the keeper
//! has batches.
//!
//! A batch is what queued while earlier calls were out: a lone call goes at once, no timer ever
//! waits, and under load batches grow by themselves.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use async_trait::async_trait;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot},
};
use tracing::{Instrument as _, Span, info_span};

use crate::{
    domain::{
        envelope::{AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::{KekSnapshot, KekVersion},
        secret::Plaintext,
        time::Monotonic,
    },
    ports::{
        abilities::Abilities,
        clock::Clock,
        kek::{Kek, Unwrap, Wrapped},
        telemetry::{Event, TRACE_TARGET, Telemetry},
    },
};

/// Calls to a keeper with batches that are out at once. More would only make batches smaller.
const BATCH_CALLS: usize = 2;

/// From so many in the queue on, those whose callers left are taken out. The others are bounded by
/// the calls that the process takes in hand.
const SWEEP_MIN: usize = 1_024;

type Outcome = Result<Plaintext, KmsError>;

/// One who waits.
struct Queued {
    ciphertext: Ciphertext,
    associated_data: AssociatedData,
    deadline: Monotonic,
    answer: oneshot::Sender<Outcome>,
    /// What the call is part of.
    span: Span,
}

#[derive(Default)]
struct State {
    /// Calls that are out.
    active: usize,
    queue: VecDeque<Queued>,
}

/// Bounds the calls of the keeper inside, and sends unwraps together. The layer outside holds each caller to its own
/// deadline.
pub struct Batch<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    inner: K,
    abilities: Abilities,
    /// Calls that are out at once, those of items that a batch left open aside.
    slots: usize,
    /// Wraps are rare, and cannot go together.
    wraps: Semaphore,
    /// For unwraps that a batch left open.
    single: Semaphore,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<dyn Telemetry>,
}

impl<K: Kek> Batch<K> {
    /// Makes the layer around `inner`, as wide as its abilities say.
    #[must_use]
    pub fn new(inner: K, clock: Arc<dyn Clock>, telemetry: Arc<dyn Telemetry>) -> Self {
        let abilities = inner.abilities();
        let Abilities { calls, batch_max, .. } = abilities;
        Self {
            shared: Arc::new(Shared {
                inner,
                abilities,
                slots: if batch_max > 1 { BATCH_CALLS } else { calls },
                wraps: Semaphore::new(calls),
                single: Semaphore::new(calls),
                state: Mutex::default(),
                clock,
                telemetry,
            }),
        }
    }
}

impl<K: Kek> Shared<K> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot, if one is free; else a place in the queue.
    fn enter(self: &Arc<Self>, sealed: Unwrap<'_>, deadline: Monotonic) -> Admission<K> {
        let mut state = self.state();
        if state.active < self.slots {
            state.active += 1;
            return Admission::Slot(Slot { shared: Arc::clone(self) });
        }
        if state.queue.len() >= SWEEP_MIN {
            state.queue.retain(|waiting| !waiting.answer.is_closed());
        }
        let (answer, outcome) = oneshot::channel();
        state.queue.push_back(Queued {
            ciphertext: sealed.ciphertext.clone(),
            associated_data: sealed.associated_data.clone(),
            deadline,
            answer,
            span: Span::current(),
        });
        let depth = state.queue.len();
        drop(state);
        self.telemetry.record(Event::Queued { depth });
        Admission::Queue(outcome)
    }

    /// Those who go next; `None` gives the slot back. Who has left meanwhile is left out.
    fn next(&self) -> Option<Vec<Queued>> {
        let now = self.clock.now();
        let mut state = self.state();
        let mut batch = Vec::new();
        while batch.len() < self.abilities.batch_max
            && let Some(waiting) = state.queue.pop_front()
        {
            if !waiting.answer.is_closed() && waiting.deadline > now {
                batch.push(waiting);
            }
        }
        let depth = state.queue.len();
        if batch.is_empty() {
            state.active -= 1;
        }
        drop(state);
        self.telemetry.record(Event::Queued { depth });
        (!batch.is_empty()).then_some(batch)
    }

    /// Sends `batch`. Items that it leaves open are asked for alone, by tasks of their own.
    async fn send(self: &Arc<Self>, batch: Vec<Queued>) {
        self.telemetry.record(Event::Batched { size: batch.len() });
        // Below the first one's, and linked to the others'.
        let parent = batch.first().and_then(|waiting| waiting.span.id());
        let span = info_span!(target: TRACE_TARGET, parent: parent, "batch", size = batch.len());
        for waiting in batch.iter().skip(1) {
            span.follows_from(&waiting.span);
        }
        let items: Vec<_> = batch
            .iter()
            .map(|w| Unwrap { ciphertext: &w.ciphertext, associated_data: &w.associated_data })
            .collect();
        // The last one's time: the others are held to theirs by the layer outside.
        let deadline = batch.iter().map(|waiting| waiting.deadline).max().unwrap_or_default();
        let outcomes = match items.as_slice() {
            [one] => vec![self.inner.unwrap(*one, deadline).instrument(span).await],
            items => self.inner.unwrap_many(items, deadline).instrument(span).await,
        };
        // Where all items failed by an outage, the keeper is in keeper_error and no item is to blame.
        let outage = |outcome: &Outcome| matches!(outcome, Err(e) if e.code().is_outage());
        let open = batch.len() > 1 && !outcomes.iter().all(outage);
        let keeper_error = Arc::new(OnceLock::new());
        for (waiting, outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                Err(error) if open && is_inconclusive(&error) => {
                    let task = Arc::clone(self).send_alone(waiting, Arc::clone(&keeper_error));
                    drop(tokio::spawn(task));
                }
                // Whoever has left does not need it.
                outcome => drop(waiting.answer.send(outcome)),
            }
        }
    }

    /// Asks for one item that its batch left open, unless the keeper turned out to be in `keeper_error`
    /// when others of the batch were asked for. Ends when the caller leaves.
    async fn send_alone(
        self: Arc<Self>,
        mut waiting: Queued,
        keeper_error: Arc<OnceLock<KmsError>>,
    ) {
        let (ciphertext, associated_data) = (&waiting.ciphertext, &waiting.associated_data);
        let asked = async {
            let _permit = self.single.acquire().await.map_err(|_closed| given_up())?;
            if let Some(error) = keeper_error.get() {
                return Err(error.clone());
            }
            let sealed = Unwrap { ciphertext, associated_data };
            let outcome = self.inner.unwrap(sealed, waiting.deadline).await;
            if let Err(error) = &outcome
                && (error.code().is_outage() || error.code() == Code::PermissionDenied)
            {
                drop(keeper_error.set(error.clone()));
            }
            outcome
        };
        let outcome = tokio::select! {
            biased;
            outcome = asked.instrument(waiting.span.clone()) => outcome,
            () = waiting.answer.closed() => return,
        };
        drop(waiting.answer.send(outcome));
    }
}

/// Whether `error`, in a batch, leaves open what the item unwraps to: the node does not have its
/// key version yet, its answer says nothing about the item, or a policy may allow single unwraps
/// and no batches.
const fn is_inconclusive(error: &KmsError) -> bool {
    let code = error.code();
    code.is_outage()
        || matches!(code, Code::VersionNotYet | Code::KeeperAnswer | Code::PermissionDenied)
}

/// How a call goes on.
enum Admission<K: Kek> {
    Slot(Slot<K>),
    Queue(oneshot::Receiver<Outcome>),
}

/// A place among the calls that are out. When it is left, those who wait take it over.
struct Slot<K: Kek> {
    shared: Arc<Shared<K>>,
}

impl<K: Kek> Drop for Slot<K> {
    fn drop(&mut self) {
        let Some(first) = self.shared.next() else { return };
        // Without a runtime the process ends, and nobody waits any more.
        let Ok(runtime) = Handle::try_current() else { return };
        let shared = Arc::clone(&self.shared);
        // A task of its own: whoever leaves its slot has its answer, or has given up.
        drop(runtime.spawn(async move {
            let mut batch = Some(first);
            while let Some(together) = batch {
                shared.send(together).await;
                batch = shared.next();
            }
        }));
    }
}

#[async_trait]
impl<K: Kek> Kek for Batch<K> {
    fn abilities(&self) -> Abilities {
        self.shared.abilities
    }

    async fn describe(&self, deadline: Monotonic) -> Result<KekSnapshot, KmsError> {
        self.shared.inner.describe(deadline).await
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        deadline: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        // Never closed, so an error means no more than that nobody may go.
        let _permit = self.shared.wraps.acquire().await.map_err(|_closed| given_up())?;
        self.shared.inner.wrap(version, plaintext, associated_data, deadline).await
    }

    async fn unwrap<'a>(
        &self,
        sealed: Unwrap<'a>,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        match self.shared.enter(sealed, deadline) {
            Admission::Slot(slot) => {
                let outcome = self.shared.inner.unwrap(sealed, deadline).await;
                drop(slot);
                outcome
            }
            Admission::Queue(outcome) => outcome.await.unwrap_or_else(|_dropped| Err(given_up())),
        }
    }

    async fn unwrap_many<'a>(
        &self,
        sealed: &[Unwrap<'a>],
        deadline: Monotonic,
    ) -> Vec<Result<Plaintext, KmsError>> {
        self.shared.inner.unwrap_many(sealed, deadline).await
    }

    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
        self.shared.inner.version_of(ciphertext)
    }
}

/// Nobody sent it before its time was over.
fn given_up() -> KmsError {
    KmsError::new(
        Code::DeadlineExceeded,
        "the call waited for the keeper until its time was over",
        "check the keeper's load and the network to it",
    )
}

impl<K: fmt::Debug> fmt::Debug for Batch<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("inner", &self.shared.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
