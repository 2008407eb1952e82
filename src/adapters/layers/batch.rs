//! Bounds the calls to a keeper at once. Sends waiting unwraps together if the keeper has batches.
//!
//! A batch contains the unwraps that queued while earlier calls were active. A lone call goes out
//! at once, no timer delays any call, and batches grow under load.

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

/// Most calls at once to a keeper with batches. More calls would only make the batches smaller.
const BATCH_CALLS: usize = 2;

/// The queue length from which abandoned entries are removed. The limit on calls of the process
/// bounds the others.
const SWEEP_MIN: usize = 1_024;

type Outcome = Result<Plaintext, KmsError>;

/// An unwrap that waits in the queue.
struct Queued {
    ciphertext: Ciphertext,
    associated_data: AssociatedData,
    deadline: Monotonic,
    answer: oneshot::Sender<Outcome>,
    /// The span of the caller.
    span: Span,
}

#[derive(Default)]
struct State {
    /// Calls that are active.
    active: usize,
    queue: VecDeque<Queued>,
}

/// Bounds the calls of the keeper inside, and sends unwraps together. The layer outside ends each
/// call at the deadline of its caller.
pub struct Batch<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    inner: K,
    abilities: Abilities,
    /// Most active calls, without the single calls for inconclusive items.
    slots: usize,
    /// Bounds wraps. They are rare and cannot go into a batch.
    wraps: Semaphore,
    /// Bounds the single calls for items that a batch left inconclusive.
    single: Semaphore,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<dyn Telemetry>,
}

impl<K: Kek> Batch<K> {
    /// Returns the layer around `inner`. The abilities of `inner` set its limits.
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

    /// Returns a slot if one is free. Else adds the unwrap to the queue.
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

    /// Returns the next batch. Skips unwraps whose caller has gone or whose deadline has passed.
    /// Frees the slot and returns `None` when no unwrap is left.
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

    /// Sends `batch` and hands out the answers. Sends each inconclusive item again alone, in a task
    /// of its own.
    async fn send(self: &Arc<Self>, batch: Vec<Queued>) {
        self.telemetry.record(Event::Batched { size: batch.len() });
        // The span is a child of the first caller and linked to the others.
        let parent = batch.first().and_then(|waiting| waiting.span.id());
        let span = info_span!(target: TRACE_TARGET, parent: parent, "batch", size = batch.len());
        for waiting in batch.iter().skip(1) {
            span.follows_from(&waiting.span);
        }
        let items: Vec<_> = batch
            .iter()
            .map(|w| Unwrap { ciphertext: &w.ciphertext, associated_data: &w.associated_data })
            .collect();
        // Uses the latest deadline. The layer outside ends the other calls at theirs.
        let deadline = batch.iter().map(|waiting| waiting.deadline).max().unwrap_or_default();
        let outcomes = match items.as_slice() {
            [one] => vec![self.inner.unwrap(*one, deadline).instrument(span).await],
            items => self.inner.unwrap_many(items, deadline).instrument(span).await,
        };
        // When all items failed by an outage, the keeper is at fault and no item is.
        let outage = |outcome: &Outcome| matches!(outcome, Err(e) if e.code().is_outage());
        let may_retry = batch.len() > 1 && !outcomes.iter().all(outage);
        let keeper_error = Arc::new(OnceLock::new());
        for (waiting, outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                Err(error) if may_retry && is_inconclusive(&error) => {
                    let task = Arc::clone(self).send_alone(waiting, Arc::clone(&keeper_error));
                    drop(tokio::spawn(task));
                }
                // Ignores a caller that has gone.
                outcome => drop(waiting.answer.send(outcome)),
            }
        }
    }

    /// Sends one item alone. Returns `keeper_error` instead, if another single call of the same
    /// batch has met it already. Ends when the caller leaves.
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

/// Returns whether `error` of an item in a batch does not decide what the item unwraps to. Either
/// the node does not have the key version yet, or the error says nothing about the item, or a
/// policy may allow single unwraps and forbid batches.
const fn is_inconclusive(error: &KmsError) -> bool {
    let code = error.code();
    code.is_outage()
        || matches!(code, Code::VersionNotYet | Code::KeeperAnswer | Code::PermissionDenied)
}

/// How a call continues: at once, or from the queue.
enum Admission<K: Kek> {
    Slot(Slot<K>),
    Queue(oneshot::Receiver<Outcome>),
}

/// One of the active calls. Dropping it starts the next batch from the queue.
struct Slot<K: Kek> {
    shared: Arc<Shared<K>>,
}

impl<K: Kek> Drop for Slot<K> {
    fn drop(&mut self) {
        let Some(first) = self.shared.next() else { return };
        // Without a runtime the process is ending, and no caller waits.
        let Ok(runtime) = Handle::try_current() else { return };
        let shared = Arc::clone(&self.shared);
        // Uses a task, because the caller that drops the slot has its answer or has gone.
        drop(runtime.spawn(async move {
            let mut batch = Some(first);
            while let Some(items) = batch {
                shared.send(items).await;
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
        // The semaphore is never closed, so this cannot fail.
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

/// The error for a call that was not sent before its deadline.
fn given_up() -> KmsError {
    KmsError::new(
        Code::DeadlineExceeded,
        "the call waited for earlier calls to the keeper until its deadline",
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
