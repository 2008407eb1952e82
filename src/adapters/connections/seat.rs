//! The table shared by those who accept connections and the connections themselves.

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

/// All seats of one server.
pub(crate) struct Seats<P>(Shared<P>);

/// The place of one open connection. It is free again when this is dropped.
pub(crate) struct Seat<P: Copy + Ord> {
    caller: Caller<P>,
    ended: CancellationToken,
}

/// Notes the requests of one connection.
pub(crate) struct Caller<P> {
    table: Shared<P>,
    id: Id,
}

/// A request that has begun, until this is dropped.
pub(crate) struct Begun<P: Copy + Ord>(Caller<P>);

/// A whole request in hand, until this is dropped.
pub(crate) struct Calling<P: Copy + Ord>(Caller<P>);

impl<P: Copy + Ord> Seats<P> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self(Arc::new(Mutex::new(Table::new(limits))))
    }

    /// Gives a seat to a connection of `peer` that has sent nothing yet, and says whether another
    /// connection is ended for it.
    pub(crate) fn take(&self, peer: P) -> (Seat<P>, bool) {
        let ended = CancellationToken::new();
        let (id, worst) = locked(&self.0).enter(peer, ended.clone());
        let caller = Caller { table: Arc::clone(&self.0), id };
        (Seat { caller, ended }, end(worst))
    }
}

impl<P: Copy + Ord> Seat<P> {
    /// Notes that the peer has sent something, and says whether another connection is ended for
    /// this one.
    pub(crate) fn heard(&self) -> bool {
        end(locked(&self.caller.table).heard(self.caller.id))
    }

    /// Is cancelled when this connection must end.
    pub(crate) const fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    pub(crate) fn caller(&self) -> Caller<P> {
        self.caller.clone()
    }
}

impl<P: Copy + Ord> Caller<P> {
    /// Notes the start of a request, which counts until the returned value is dropped. Where there
    /// are too many over all connections, the one with the most of them ends.
    ///
    /// # Errors
    /// Where too many are held, or the connection was ended: the request is to be refused.
    pub(crate) fn begin(&self) -> Result<Begun<P>, Full> {
        let _one_ended = end(locked(&self.table).request_began(self.id)?);
        Ok(Begun(self.clone()))
    }

    /// Notes a whole request, which is in hand until the returned value is dropped.
    pub(crate) fn call(&self) -> Calling<P> {
        locked(&self.table).call_began(self.id);
        Calling(self.clone())
    }
}

impl<P: Copy + Ord> Drop for Seat<P> {
    fn drop(&mut self) {
        locked(&self.caller.table).leave(self.caller.id);
    }
}

impl<P: Copy + Ord> Drop for Begun<P> {
    fn drop(&mut self) {
        locked(&self.0.table).request_ended(self.0.id);
    }
}

impl<P: Copy + Ord> Drop for Calling<P> {
    fn drop(&mut self) {
        locked(&self.0.table).call_ended(self.0.id);
    }
}

impl<P> Clone for Caller<P> {
    fn clone(&self) -> Self {
        Self { table: Arc::clone(&self.table), id: self.id }
    }
}

impl<P: Copy + Ord> fmt::Debug for Seat<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seat").field(&self.caller.id).finish()
    }
}

/// Ends a connection, if there is one to end, and says whether there was.
fn end(worst: Option<CancellationToken>) -> bool {
    worst.is_some_and(|worst| {
        worst.cancel();
        true
    })
}
