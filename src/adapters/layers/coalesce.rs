//! Lets equal unwraps at the same time share one call. API servers ask for the same seed once for
//! each list that they read. Keeps nothing after the call has ended, and never shares wraps.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};

use crate::{
    domain::{
        envelope::{AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::{KekSnapshot, KekVersion},
        secret::Plaintext,
        time::{CALL_BUDGET, Monotonic},
    },
    ports::{
        abilities::Abilities,
        clock::Clock,
        kek::{Kek, Unwrap, Wrapped},
        telemetry::{Event, Telemetry},
    },
};

/// The least time of a shared call. A caller with less time must not shorten it. The calls of an
/// API server have more time.
const SHARED_CALL_MIN: Duration = Duration::from_secs(2);

type Outcome = Result<Plaintext, KmsError>;

/// A call that all its callers drive. It goes on when one caller leaves, and is dropped when all
/// have left.
type SharedCall = Shared<BoxFuture<'static, Outcome>>;

/// Two unwraps with the same key are equal. The associated data contains `key_id` and annotations.
type Key = Arc<(Ciphertext, AssociatedData)>;

/// The active calls, each with its deadline. Only the callers keep a call alive.
type SharedCalls = Arc<Mutex<HashMap<Key, (WeakShared<BoxFuture<'static, Outcome>>, Monotonic)>>>;

/// Shares calls of the keeper inside. The layer outside ends each call at the deadline of its
/// caller.
pub struct Coalesce<K> {
    inner: Arc<K>,
    calls: SharedCalls,
    clock: Arc<dyn Clock>,
    telemetry: Arc<dyn Telemetry>,
}

impl<K: Kek> Coalesce<K> {
    /// Returns the layer around `inner`.
    #[must_use]
    pub fn new(inner: K, clock: Arc<dyn Clock>, telemetry: Arc<dyn Telemetry>) -> Self {
        Self { inner: Arc::new(inner), calls: SharedCalls::default(), clock, telemetry }
    }

    /// Joins the active call for `key`, or starts one. Returns the call and its deadline.
    fn join_or_start(&self, key: &Key, deadline: Monotonic) -> (SharedCall, Monotonic) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((call, until)) = calls.get(key)
            && let Some(call) = call.upgrade()
        {
            self.telemetry.record(Event::Coalesced);
            return (call, *until);
        }
        // A short first deadline must not fail callers that join later: the call then gets
        // [`CALL_BUDGET`]. Otherwise it uses the deadline of the first caller, so that the cause of
        // a failure arrives before that caller has to leave.
        let now = self.clock.now();
        let until =
            if deadline.since(now) < SHARED_CALL_MIN { now.after(CALL_BUDGET) } else { deadline };
        let entry = RemoveOnDrop { key: Arc::clone(key), until, calls: Arc::clone(&self.calls) };
        let inner = Arc::clone(&self.inner);
        let call = async move {
            let (ciphertext, associated_data) = &*entry.key;
            inner.unwrap(Unwrap { ciphertext, associated_data }, until).await
        };
        let call = call.boxed().shared();
        if let Some(weak) = call.downgrade() {
            calls.insert(Arc::clone(key), (weak, until));
        }
        (call, until)
    }
}

/// Removes a call from the map when it has ended or was dropped.
struct RemoveOnDrop {
    key: Key,
    until: Monotonic,
    calls: SharedCalls,
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        // Another call may have taken its place.
        if calls.get(&self.key).is_some_and(|(_, until)| *until == self.until) {
            calls.remove(&self.key);
        }
    }
}

#[async_trait]
impl<K: Kek> Kek for Coalesce<K> {
    fn abilities(&self) -> Abilities {
        self.inner.abilities()
    }

    async fn describe(&self, deadline: Monotonic) -> Result<KekSnapshot, KmsError> {
        self.inner.describe(deadline).await
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        deadline: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        self.inner.wrap(version, plaintext, associated_data, deadline).await
    }

    async fn unwrap<'a>(
        &self,
        sealed: Unwrap<'a>,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        let key = Arc::new((sealed.ciphertext.clone(), sealed.associated_data.clone()));
        loop {
            let (call, until) = self.join_or_start(&key, deadline);
            let outcome = call.await;
            let too_late = outcome.as_ref().is_err_and(|error| {
                matches!(error.code(), Code::DeadlineExceeded | Code::KeeperTimeout)
            });
            // The shared call may end before the deadline of a caller that joined late: tries again
            // then.
            if !too_late || until >= deadline || self.clock.now() >= deadline {
                return outcome;
            }
        }
    }

    async fn unwrap_many<'a>(
        &self,
        sealed: &[Unwrap<'a>],
        deadline: Monotonic,
    ) -> Vec<Result<Plaintext, KmsError>> {
        self.inner.unwrap_many(sealed, deadline).await
    }

    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
        self.inner.version_of(ciphertext)
    }
}

impl<K: fmt::Debug> fmt::Debug for Coalesce<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalesce").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "coalesce_tests.rs"]
mod tests;
