//! Chooses the connection to close when there are too many. A pure value: it reads no clock and
//! uses no socket.

use std::{cmp::Reverse, collections::BTreeMap};

/// How many connections may be open at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most silent connections: they have sent nothing yet. Each costs a descriptor and little
    /// else.
    pub(crate) silent: usize,
    /// Most speaking connections: all others.
    pub(crate) speaking: usize,
    /// Most unfinished requests over all open connections: begun and not answered. Each may hold a
    /// message.
    pub(crate) requests: usize,
    /// Most unfinished requests including those of closed connections that are not dropped yet.
    /// Beyond it, each connection may have only one.
    pub(crate) held: usize,
}

/// Too many requests are unfinished, or the connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Identifies a connection of one table. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(u64);

/// The progress of a connection. A connection with less progress is closed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It has sent nothing.
    Silent,
    /// It has sent something, but no complete request.
    Sending,
    /// All its requests were answered.
    Served,
    /// It has active calls.
    Calling,
}

/// What the table knows of an open connection.
#[derive(Debug)]
struct Entry<P, H> {
    peer: P,
    handle: H,
    stage: Stage,
    /// Active calls: complete requests that are not answered.
    calls: usize,
    /// Unfinished requests: begun and not answered, complete or not.
    requests: usize,
    /// The sequence number of its last activity. The lowest number is the longest idle.
    last_activity: u64,
}

impl<P, H> Entry<P, H> {
    /// Returns the stage that decides which connection to close. A connection that has only
    /// unfinished requests and no active call (they are incomplete, or the peer does not read the
    /// answers) counts as [`Stage::Sending`] at most.
    fn effective_stage(&self) -> Stage {
        let is_unfinished = self.requests > 0 && self.calls == 0;
        if is_unfinished { self.stage.min(Stage::Sending) } else { self.stage }
    }
}

/// The open connections of one server. `P` identifies the peer: a peer that opens many connections
/// loses its own first. `H` is the handle that closes a connection.
///
/// There are two groups with a limit each: the silent and the speaking connections. The connection
/// to close belongs to the peer with the most connections in the group. Among its connections it is
/// the one with the least progress, and among equals the one that is idle for longest. It is never
/// the connection that has just entered the group.
#[derive(Debug)]
pub(crate) struct Table<P, H> {
    limits: Limits,
    /// Counts the events of all connections.
    sequence: u64,
    /// Unfinished requests of all open connections.
    requests: usize,
    /// The same, including those of closed connections that are not dropped yet.
    held: usize,
    open: BTreeMap<Id, Entry<P, H>>,
}

impl<P: Copy + Ord, H> Table<P, H> {
    /// Returns an empty table.
    pub(crate) const fn new(limits: Limits) -> Self {
        Self { limits, sequence: 0, requests: 0, held: 0, open: BTreeMap::new() }
    }

    /// Adds a silent connection. Returns its identifier, and the handle of the connection to close
    /// for it. That connection has left the table.
    pub(crate) fn enter(&mut self, peer: P, handle: H) -> (Id, Option<H>) {
        let sequence = self.next_sequence();
        let id = Id(sequence);
        let entry = Entry {
            peer,
            handle,
            stage: Stage::Silent,
            calls: 0,
            requests: 0,
            last_activity: sequence,
        };
        self.open.insert(id, entry);
        (id, self.make_room(id))
    }

    /// Records that connection `id` has sent something. When these are its first bytes and too many
    /// connections speak now, returns the handle of the connection to close.
    pub(crate) fn record_activity(&mut self, id: Id) -> Option<H> {
        let sequence = self.next_sequence();
        let entry = self.open.get_mut(&id)?;
        entry.last_activity = sequence;
        if entry.stage != Stage::Silent {
            return None;
        }
        entry.stage = Stage::Sending;
        self.make_room(id)
    }

    /// Records that a request of connection `id` has begun. When there are too many unfinished
    /// requests now, returns the handle of the connection to close. It may be the same connection.
    ///
    /// # Errors
    /// Returns [`Full`] when too many requests are unfinished or the connection was closed. Refuse
    /// the request then.
    pub(crate) fn request_began(&mut self, id: Id) -> Result<Option<H>, Full> {
        let entry = self.open.get_mut(&id).ok_or(Full)?;
        if self.held >= self.limits.held && entry.requests > 0 {
            return Err(Full);
        }
        entry.requests = entry.requests.saturating_add(1);
        self.requests = self.requests.saturating_add(1);
        self.held = self.held.saturating_add(1);
        Ok(self.make_room_for_requests())
    }

    fn make_room_for_requests(&mut self) -> Option<H> {
        if self.requests <= self.limits.requests {
            return None;
        }
        let of_peer = self.by_peer(|_| true, |entry| entry.requests);
        let (worst, _) = self.open.iter().min_by_key(|(_, entry)| {
            let of_peer = of_peer.get(&entry.peer).copied().unwrap_or_default();
            (Reverse(of_peer), Reverse(entry.requests), entry.stage, entry.last_activity)
        })?;
        self.remove(*worst)
    }

    /// Records that a request of connection `id` was answered, abandoned, or dropped with its
    /// connection.
    pub(crate) fn request_ended(&mut self, id: Id) {
        self.held = self.held.saturating_sub(1);
        if let Some(entry) = self.open.get_mut(&id) {
            entry.requests = entry.requests.saturating_sub(1);
            self.requests = self.requests.saturating_sub(1);
        }
    }

    /// Records that a complete request of connection `id` has arrived.
    pub(crate) fn call_began(&mut self, id: Id) {
        let sequence = self.next_sequence();
        if let Some(entry) = self.open.get_mut(&id) {
            entry.last_activity = sequence;
            entry.calls = entry.calls.saturating_add(1);
            entry.stage = Stage::Calling;
        }
    }

    /// Records that a complete request of connection `id` was answered or abandoned.
    pub(crate) fn call_ended(&mut self, id: Id) {
        let sequence = self.next_sequence();
        if let Some(entry) = self.open.get_mut(&id) {
            entry.last_activity = sequence;
            entry.calls = entry.calls.saturating_sub(1);
            if entry.calls == 0 {
                entry.stage = Stage::Served;
            }
        }
    }

    /// Removes connection `id`.
    pub(crate) fn leave(&mut self, id: Id) {
        drop(self.remove(id));
    }

    fn remove(&mut self, id: Id) -> Option<H> {
        let entry = self.open.remove(&id)?;
        self.requests = self.requests.saturating_sub(entry.requests);
        Some(entry.handle)
    }

    /// Returns the sum of `size` over the connections of `group`, for each peer.
    fn by_peer(
        &self,
        group: impl Fn(&Entry<P, H>) -> bool,
        size: impl Fn(&Entry<P, H>) -> usize,
    ) -> BTreeMap<P, usize> {
        let mut sums: BTreeMap<P, usize> = BTreeMap::new();
        for entry in self.open.values().filter(|entry| group(entry)) {
            let sum = sums.entry(entry.peer).or_default();
            *sum = sum.saturating_add(size(entry));
        }
        sums
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence = self.sequence.saturating_add(1);
        self.sequence
    }

    /// Removes a connection from the group of `newest` if the group is too large. Returns the
    /// handle of the removed connection.
    fn make_room(&mut self, newest: Id) -> Option<H> {
        let silent = self.open.get(&newest)?.stage == Stage::Silent;
        let limit = if silent { self.limits.silent } else { self.limits.speaking };
        let group = |entry: &Entry<P, H>| (entry.stage == Stage::Silent) == silent;
        if self.open.values().filter(|entry| group(entry)).count() <= limit {
            return None;
        }
        let of_peer = self.by_peer(group, |_| 1);
        let others = self.open.iter().filter(|(id, entry)| **id != newest && group(entry));
        let (worst, _) = others.min_by_key(|(_, entry)| {
            let of_peer = of_peer.get(&entry.peer).copied().unwrap_or_default();
            (Reverse(of_peer), entry.effective_stage(), entry.last_activity)
        })?;
        self.remove(*worst)
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
