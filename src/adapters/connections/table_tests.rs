use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { silent: 3, speaking: 3, requests: 4, held: 6 };

/// Returns a table whose handles are names.
fn table() -> Table<u32, &'static str> {
    Table::new(LIMITS)
}

/// Adds a connection that has sent something. Requires that no other connection is closed for it.
fn sending(table: &mut Table<u32, &'static str>, peer: u32, name: &'static str) -> Id {
    let (id, ended) = table.enter(peer, name);
    assert_eq!((ended, table.record_activity(id)), (None, None), "{name}");
    id
}

fn served(table: &mut Table<u32, &'static str>, peer: u32, name: &'static str) -> Id {
    let id = sending(table, peer, name);
    table.call_began(id);
    table.call_ended(id);
    id
}

#[test]
fn closes_the_oldest_silent_connection_and_no_speaking_one() {
    let mut table = table();
    sending(&mut table, 0, "speaks");
    for name in ["first", "second", "third"] {
        assert_eq!(table.enter(0, name).1, None);
    }
    assert_eq!(table.enter(0, "fourth").1, Some("first"));
    assert_eq!(table.enter(0, "fifth").1, Some("second"));
}

#[test]
fn closes_a_connection_without_requests_before_an_idle_one() {
    let mut table = table();
    served(&mut table, 0, "served long ago");
    sending(&mut table, 0, "only sending");
    served(&mut table, 0, "served");
    let (id, _) = table.enter(0, "new");
    assert_eq!(table.record_activity(id), Some("only sending"));
    table.call_began(id);
    let (id, _) = table.enter(0, "newer");
    assert_eq!(table.record_activity(id), Some("served long ago"));
}

#[test]
fn closes_a_connection_with_an_active_call_last() {
    let mut table = table();
    let calling = sending(&mut table, 0, "calling");
    table.call_began(calling);
    table.call_began(calling);
    table.call_ended(calling);
    served(&mut table, 0, "served");
    served(&mut table, 0, "served later");
    for (new, ended) in [("a", "served"), ("b", "a")] {
        let (id, _) = table.enter(0, new);
        assert_eq!(table.record_activity(id), Some(ended));
    }
}

#[test]
fn keeps_the_newest_connection() {
    let mut table = table();
    for name in ["one", "two", "three"] {
        let id = sending(&mut table, 0, name);
        table.call_began(id);
    }
    let (id, _) = table.enter(0, "new");
    assert_eq!(table.record_activity(id), Some("one"));
}

#[test]
fn closes_a_connection_of_the_peer_with_the_most() {
    let mut table = table();
    sending(&mut table, 1, "the other peer's");
    served(&mut table, 0, "one of two");
    served(&mut table, 0, "two of two");
    let (id, _) = table.enter(1, "the other peer's second");
    // Both peers have two connections: closes the one with the least progress.
    assert_eq!(table.record_activity(id), Some("the other peer's"));
    let (id, _) = table.enter(0, "three of three");
    assert_eq!(table.record_activity(id), Some("one of two"));
}

#[test]
fn does_not_count_connections_that_have_gone() {
    let mut table = table();
    let ids = ["one", "two", "three"].map(|name| table.enter(0, name).0);
    table.leave(ids[0]);
    assert_eq!(table.enter(0, "four").1, None);
    assert_eq!(table.enter(0, "five").1, Some("two"));
    table.call_began(ids[1]);
    table.call_ended(ids[1]);
    assert_eq!(table.record_activity(ids[1]), None);
}

#[test]
fn closes_a_connection_whose_answers_are_not_read_first() {
    let mut table = table();
    let calling = served(&mut table, 0, "calling");
    assert_eq!(table.request_began(calling), Ok(None));
    table.call_began(calling);
    let hoarder = served(&mut table, 0, "hoarder");
    assert_eq!(table.request_began(hoarder), Ok(None));
    assert_eq!(table.request_began(hoarder), Ok(None));
    let newcomer = sending(&mut table, 0, "newcomer");
    assert_eq!(table.request_began(newcomer), Ok(None));
    let (id, _) = table.enter(0, "next");
    assert_eq!(table.record_activity(id), Some("hoarder"));
}

#[test]
fn closes_the_connection_with_the_most_requests() {
    let mut table = table();
    let modest = served(&mut table, 1, "another peer's");
    let few = served(&mut table, 0, "one request");
    let many = served(&mut table, 0, "two requests");
    for id in [modest, few, many, many] {
        assert_eq!(table.request_began(id), Ok(None));
    }
    assert_eq!(table.request_began(modest), Ok(Some("two requests")));
    // The requests of the closed connection count until they are dropped.
    assert_eq!(table.request_began(many), Err(Full));
    assert_eq!(table.request_began(modest), Ok(None));
    assert_eq!(table.request_began(modest), Err(Full));
    table.request_ended(many);
    table.request_ended(many);
    assert_eq!(table.request_began(modest), Ok(Some("another peer's")));
}

proptest! {
    /// Checks that the limits hold after each sequence of events, and that a peer within its share
    /// of a group loses no connection to another peer.
    #[test]
    fn the_limits_hold_and_a_modest_peer_loses_nothing(
        steps in proptest::collection::vec((0_u8..7, 0_usize..20, 0_u32..3), 1..300),
    ) {
        let mut table = Table::new(LIMITS);
        let mut ids: Vec<Id> = Vec::new();
        let (modest, none) = table.enter(99, 99);
        prop_assert_eq!((none, table.record_activity(modest)), (None, None));
        for (step, which, peer) in steps {
            let id = ids.get(which % ids.len().max(1)).copied();
            let ended = match (step, id) {
                (0, _) => {
                    let (id, ended) = table.enter(peer, peer);
                    ids.push(id);
                    ended
                }
                (1, Some(id)) => table.record_activity(id),
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
                // The modest peer may lose its connection only when each other peer has at most
                // one.
                let speaking = table.open.values().filter(|e| e.stage != Stage::Silent);
                let mut peers: Vec<_> = speaking.map(|e| e.peer).collect();
                peers.sort_unstable();
                prop_assert!(peers.windows(2).all(|two| two[0] != two[1]));
                return Ok(());
            }
        }
    }
}
