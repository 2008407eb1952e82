//! Shares the table of connections between the code that accepts them and the connections
//! themselves.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::table::{Full, Id, Limits, Table};

type Shared<P> = Arc<Mutex<Table<P, CancellationToken>>>;

fn locked<P>(table: &Shared<P>) -> MutexGuard<'_, Table<P, CancellationToken>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The slots of one server.
pub(crate) struct Slots<P>(Shared<P>);

/// The slot of one open connection. Dropping it frees the slot.
pub(crate) struct Slot<P: Copy + Ord> {
    counter: RequestCounter<P>,
    ended: CancellationToken,
}

/// Counts the requests of one connection.
pub(crate) struct RequestCounter<P> {
    table: Shared<P>,
    id: Id,
}

/// Counts a request as begun until it is dropped.
pub(crate) struct BegunRequest<P: Copy + Ord>(RequestCounter<P>);

/// Counts a complete request as active until it is dropped.
pub(crate) struct ActiveCall<P: Copy + Ord>(RequestCounter<P>);

impl<P: Copy + Ord> Slots<P> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self(Arc::new(Mutex::new(Table::new(limits))))
    }

    /// Gives a slot to a connection of `peer` that has sent nothing yet. Returns whether another
    /// connection was closed for it.
    pub(crate) fn take(&self, peer: P) -> (Slot<P>, bool) {
        let ended = CancellationToken::new();
        let (id, worst) = locked(&self.0).enter(peer, ended.clone());
        let counter = RequestCounter { table: Arc::clone(&self.0), id };
        (Slot { counter, ended }, end(worst))
    }
}

impl<P: Copy + Ord> Slot<P> {
    /// Records that the peer has sent something. Returns whether another connection was closed to
    /// make room for this one.
    pub(crate) fn record_activity(&self) -> bool {
        end(locked(&self.counter.table).record_activity(self.counter.id))
    }

    /// Returns the token that is cancelled when this connection must close.
    pub(crate) const fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    pub(crate) fn counter(&self) -> RequestCounter<P> {
        self.counter.clone()
    }
}

impl<P: Copy + Ord> RequestCounter<P> {
    /// Counts a request as begun until the returned value is dropped. When too many requests have
    /// begun over all connections, closes the connection with the most of them.
    ///
    /// # Errors
    /// Returns [`Full`] when too many requests are unfinished or this connection was closed. Refuse
    /// the request then.
    pub(crate) fn begin(&self) -> Result<BegunRequest<P>, Full> {
        let _closed = end(locked(&self.table).request_began(self.id)?);
        Ok(BegunRequest(self.clone()))
    }

    /// Counts a complete request as active until the returned value is dropped.
    pub(crate) fn call(&self) -> ActiveCall<P> {
        locked(&self.table).call_began(self.id);
        ActiveCall(self.clone())
    }
}

impl<P: Copy + Ord> Drop for Slot<P> {
    fn drop(&mut self) {
        locked(&self.counter.table).leave(self.counter.id);
    }
}

impl<P: Copy + Ord> Drop for BegunRequest<P> {
    fn drop(&mut self) {
        locked(&self.0.table).request_ended(self.0.id);
    }
}

impl<P: Copy + Ord> Drop for ActiveCall<P> {
    fn drop(&mut self) {
        locked(&self.0.table).call_ended(self.0.id);
    }
}

impl<P> Clone for RequestCounter<P> {
    fn clone(&self) -> Self {
        Self { table: Arc::clone(&self.table), id: self.id }
    }
}

impl<P: Copy + Ord> fmt::Debug for Slot<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.counter.id).finish()
    }
}

/// Closes the connection of this token, if there is one. Returns whether there was one.
fn end(worst: Option<CancellationToken>) -> bool {
    worst.is_some_and(|worst| {
        worst.cancel();
        true
    })
}
