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
/// that has come the least far, and among equals the idlest. It is never the connection that has just entered the group.
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { silent: 3, speaking: 3, requests: 4, held: 6 };

    /// A table whose connections are named by what ends them.
    fn table() -> Table<u32, &'static str> {
        Table::new(LIMITS)
    }

    /// Lets a connection enter that nothing has to end for, and say something.
    fn greeted(table: &mut Table<u32, &'static str>, peer: u32, name: &'static str) -> Id {
        let (id, ended) = table.enter(peer, name);
        assert_eq!((ended, table.heard(id)), (None, None), "{name}");
        id
    }

    fn served(table: &mut Table<u32, &'static str>, peer: u32, name: &'static str) -> Id {
        let id = greeted(table, peer, name);
        table.call_began(id);
        table.call_ended(id);
        id
    }

    #[test]
    fn the_oldest_of_too_many_silent_connections_ends_and_no_speaking_one() {
        let mut table = table();
        greeted(&mut table, 0, "speaks");
        for name in ["first", "second", "third"] {
            assert_eq!(table.enter(0, name).1, None);
        }
        assert_eq!(table.enter(0, "fourth").1, Some("first"));
        assert_eq!(table.enter(0, "fifth").1, Some("second"));
    }

    #[test]
    fn a_connection_without_requests_ends_before_an_idle_one_that_had_some() {
        let mut table = table();
        served(&mut table, 0, "served long ago");
        greeted(&mut table, 0, "only greeted");
        served(&mut table, 0, "served");
        let (id, _) = table.enter(0, "new");
        assert_eq!(table.heard(id), Some("only greeted"));
        table.call_began(id);
        let (id, _) = table.enter(0, "newer");
        assert_eq!(table.heard(id), Some("served long ago"));
    }

    #[test]
    fn a_connection_with_a_request_in_hand_ends_last() {
        let mut table = table();
        let calling = greeted(&mut table, 0, "calling");
        table.call_began(calling);
        table.call_began(calling);
        table.call_ended(calling);
        served(&mut table, 0, "served");
        served(&mut table, 0, "served later");
        for (new, ended) in [("a", "served"), ("b", "a")] {
            let (id, _) = table.enter(0, new);
            assert_eq!(table.heard(id), Some(ended));
        }
    }

    #[test]
    fn the_newest_stays_even_where_it_is_the_worst() {
        let mut table = table();
        for name in ["one", "two", "three"] {
            let id = greeted(&mut table, 0, name);
            table.call_began(id);
        }
        let (id, _) = table.enter(0, "new");
        assert_eq!(table.heard(id), Some("one"));
    }

    #[test]
    fn the_peer_with_the_most_connections_loses_one() {
        let mut table = table();
        greeted(&mut table, 1, "the other peer's");
        served(&mut table, 0, "one of two");
        served(&mut table, 0, "two of two");
        let (id, _) = table.enter(1, "the other peer's second");
        // Two each: the one that has come the least far.
        assert_eq!(table.heard(id), Some("the other peer's"));
        let (id, _) = table.enter(0, "three of three");
        assert_eq!(table.heard(id), Some("one of two"));
    }

    #[test]
    fn what_has_left_or_was_ended_does_not_count() {
        let mut table = table();
        let ids = ["one", "two", "three"].map(|name| table.enter(0, name).0);
        table.leave(ids[0]);
        assert_eq!(table.enter(0, "four").1, None);
        assert_eq!(table.enter(0, "five").1, Some("two"));
        table.call_began(ids[1]);
        table.call_ended(ids[1]);
        assert_eq!(table.heard(ids[1]), None);
    }

    #[test]
    fn a_connection_whose_answers_are_not_taken_ends_before_a_newcomer() {
        let mut table = table();
        let calling = served(&mut table, 0, "calling");
        assert_eq!(table.request_began(calling), Ok(None));
        table.call_began(calling);
        let hoarder = served(&mut table, 0, "hoarder");
        assert_eq!(table.request_began(hoarder), Ok(None));
        assert_eq!(table.request_began(hoarder), Ok(None));
        let newcomer = greeted(&mut table, 0, "newcomer");
        assert_eq!(table.request_began(newcomer), Ok(None));
        let (id, _) = table.enter(0, "next");
        assert_eq!(table.heard(id), Some("hoarder"));
    }

    #[test]
    fn of_too_many_requests_the_connection_with_the_most_ends() {
        let mut table = table();
        let modest = served(&mut table, 1, "another peer's");
        let few = served(&mut table, 0, "one request");
        let many = served(&mut table, 0, "two requests");
        for id in [modest, few, many, many] {
            assert_eq!(table.request_began(id), Ok(None));
        }
        assert_eq!(table.request_began(modest), Ok(Some("two requests")));
        // Those of the connection that went are held until they are dropped.
        assert_eq!(table.request_began(many), Err(Full));
        assert_eq!(table.request_began(modest), Ok(None));
        assert_eq!(table.request_began(modest), Err(Full));
        table.request_ended(many);
        table.request_ended(many);
        assert_eq!(table.request_began(modest), Ok(Some("another peer's")));
    }

    proptest! {
        /// Whatever happens in whatever order, the limits hold, and a peer that keeps to its share
        /// of a group loses nothing to another peer.
        #[test]
        fn the_limits_hold_and_a_modest_peer_loses_nothing(
            steps in proptest::collection::vec((0_u8..7, 0_usize..20, 0_u32..3), 1..300),
        ) {
            let mut table = Table::new(LIMITS);
            let mut ids: Vec<Id> = Vec::new();
            let (modest, none) = table.enter(99, 99);
            prop_assert_eq!((none, table.heard(modest)), (None, None));
            for (step, which, peer) in steps {
                let id = ids.get(which % ids.len().max(1)).copied();
                let ended = match (step, id) {
                    (0, _) => {
                        let (id, ended) = table.enter(peer, peer);
                        ids.push(id);
                        ended
                    }
                    (1, Some(id)) => table.heard(id),
                    (2, Some(id)) if table.open[&id].stage != Stage::Silent => {
                        table.call_began(id);
                        None
                    }
                    (3, Some(id)) if table.open[&id].calls > 0 => {
                        table.call_ended(id);
                        None
                    }
                    (4, Some(id)) => {
                        table.leave(id);
                        None
                    }
                    (5, Some(id)) => table.request_began(id).unwrap_or_default(),
                    (6, Some(id)) if table.open[&id].requests > 0 => {
                        table.request_ended(id);
                        None
                    }
                    _ => None,
                };
                ids.retain(|id| table.open.contains_key(id));
                let silent = table.open.values().filter(|e| e.stage == Stage::Silent).count();
                let requests: usize = table.open.values().map(|e| e.requests).sum();
                prop_assert_eq!(table.requests, requests);
                prop_assert!(requests <= LIMITS.requests);
                prop_assert!(table.held >= requests);
                prop_assert!(silent <= LIMITS.silent);
                prop_assert!(table.open.len() - silent <= LIMITS.speaking);
                if ended == Some(99) {
                    // Only where each of the others has no more than it has.
                    let speaking = table.open.values().filter(|e| e.stage != Stage::Silent);
                    let mut peers: Vec<_> = speaking.map(|e| e.peer).collect();
                    peers.sort_unstable();
                    prop_assert!(peers.windows(2).all(|two| two[0] != two[1]));
                    return Ok(());
                }
            }
        }
    }
}
