//! Decides which connection to end when there are too many. A pure value: it reads no clock and
//! touches no socket.

use std::{cmp::Reverse, collections::BTreeMap};

/// How many connections may be open at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of those that have sent nothing yet. They cost a descriptor each and little else.
    pub(crate) silent: usize,
    /// Of all others.
    pub(crate) speaking: usize,
    /// Requests that have begun and are not answered, over all connections: each may hold a message.
    pub(crate) requests: usize,
    /// The same with those of connections that were ended and are not dropped yet. Beyond it, a
    /// connection has one request at a time.
    pub(crate) held: usize,
}

/// Too many requests are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Names a connection of one table. No name is given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(u64);

/// How far a connection has come. A lesser one is ended before a greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It has sent nothing.
    Silent,
    /// It has sent something, but no whole request.
    Greeted,
    /// Its requests were all answered.
    Served,
    /// Requests are in hand.
    Calling,
}

/// What is known of an open connection.
#[derive(Debug)]
struct Entry<P, H> {
    peer: P,
    handle: H,
    stage: Stage,
    /// Requests in hand.
    calls: usize,
    /// Requests that have begun and are not answered, whole or not.
    requests: usize,
    /// The turn of its last sign of life: the connection with the smallest one is the idlest.
    turn: u64,
}

impl<P, H> Entry<P, H> {
    /// How far it has come. One with none but unfinished requests (not whole, or their answers not
    /// taken) has come no further than one without any.
    fn reached(&self) -> Stage {
        let is_unfinished = self.requests > 0 && self.calls == 0;
        if is_unfinished { self.stage.min(Stage::Greeted) } else { self.stage }
    }
}

/// The open connections of one server. `P` says who is on the other side; what one peer does costs
/// that peer its own connections first. `H` is what ends a connection.
///
/// There are two groups, the silent connections and the speaking ones, each with a limit. The one
/// to end is taken from the peer with the most connections of the group. Of those it is the one
/// that has come the least far, and among equals the idlest. It is never the connection that has
/// just entered the group.
#[derive(Debug)]
pub(crate) struct Table<P, H> {
    limits: Limits,
    turn: u64,
    /// Requests that have begun, over all connections.
    requests: usize,
    /// The same with those of connections that have gone.
    held: usize,
    open: BTreeMap<Id, Entry<P, H>>,
}

impl<P: Copy + Ord, H> Table<P, H> {
    /// A table without connections.
    pub(crate) const fn new(limits: Limits) -> Self {
        Self { limits, turn: 0, requests: 0, held: 0, open: BTreeMap::new() }
    }

    /// Adds a silent connection. Returns its name, and what ends the connection that must go for
    /// it, which is no longer in the table.
    pub(crate) fn enter(&mut self, peer: P, handle: H) -> (Id, Option<H>) {
        let turn = self.next_turn();
        let id = Id(turn);
        let entry = Entry { peer, handle, stage: Stage::Silent, calls: 0, requests: 0, turn };
        self.open.insert(id, entry);
        (id, self.make_room(id))
    }

    /// Notes that connection `id` has sent something. Returns what ends the connection that must
    /// go, if this is its first word and too many speak now.
    pub(crate) fn heard(&mut self, id: Id) -> Option<H> {
        let turn = self.next_turn();
        let entry = self.open.get_mut(&id)?;
        entry.turn = turn;
        if entry.stage != Stage::Silent {
            return None;
        }
        entry.stage = Stage::Greeted;
        self.make_room(id)
    }

    /// Notes that a request of connection `id` has begun. Returns what ends the connection that must
    /// go, if too many have begun now; it may be the same connection.
    ///
    /// # Errors
    /// Where too many are held, or the connection was ended: the request is to be refused.
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
            (Reverse(of_peer), Reverse(entry.requests), entry.stage, entry.turn)
        })?;
        self.remove(*worst)
    }

    /// Notes that a request of connection `id` was answered or given up, or dropped with it.
    pub(crate) fn request_ended(&mut self, id: Id) {
        self.held = self.held.saturating_sub(1);
        if let Some(entry) = self.open.get_mut(&id) {
            entry.requests = entry.requests.saturating_sub(1);
            self.requests = self.requests.saturating_sub(1);
        }
    }

    /// Notes that a whole request of connection `id` has arrived.
    pub(crate) fn call_began(&mut self, id: Id) {
        let turn = self.next_turn();
        if let Some(entry) = self.open.get_mut(&id) {
            entry.turn = turn;
            entry.calls = entry.calls.saturating_add(1);
            entry.stage = Stage::Calling;
        }
    }

    /// Notes that a whole request of connection `id` was answered or given up.
    pub(crate) fn call_ended(&mut self, id: Id) {
        let turn = self.next_turn();
        if let Some(entry) = self.open.get_mut(&id) {
            entry.turn = turn;
            entry.calls = entry.calls.saturating_sub(1);
            if entry.calls == 0 {
                entry.stage = Stage::Served;
            }
        }
    }

    /// Forgets connection `id`.
    pub(crate) fn leave(&mut self, id: Id) {
        drop(self.remove(id));
    }

    fn remove(&mut self, id: Id) -> Option<H> {
        let entry = self.open.remove(&id)?;
        self.requests = self.requests.saturating_sub(entry.requests);
        Some(entry.handle)
    }

    /// The sum of `size` over the connections of `group`, for each peer.
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

    fn next_turn(&mut self) -> u64 {
        self.turn = self.turn.saturating_add(1);
        self.turn
    }

    /// Takes out the worst connection of the group that `newest` has entered, if it is too large.
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
            (Reverse(of_peer), entry.reached(), entry.turn)
        })?;
        self.remove(*worst)
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
