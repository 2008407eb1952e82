use super::text::*;
use crate::domain::{
    node::{Fault, Node},
    rotation::{
        Facts, Left, Phase, View,
        tests::{facts, node, server, silent, waiting},
    },
};

fn shown(facts: &Facts) -> String {
    let typed = Typed {
        rotation: "vault-kube-kmsctl rotation --node=cp-1=http://127.0.0.1:9091".to_owned(),
        nodes: "--node=cp-1=http://127.0.0.1:9091".to_owned(),
        kubeconfig: "--kubeconfig=admin.conf".to_owned(),
    };
    page(&View::of(facts), &typed)
}

#[test]
fn the_next_command_waits_until_all_api_servers_write() {
    for (in_s, next) in [
        (Some(500), "Next:\n  sleep 500; R"),
        (None, "Next:\n  R --api-server=URL   # once for each API server"),
    ] {
        let view = View {
            phase: Phase::Settling { version: 2, in_s },
            ..View::of(&facts(vec![node(2)], vec![]))
        };
        let shown = page(&view, &Typed { rotation: "R".to_owned(), ..Typed::default() });
        assert!(shown.ends_with(next), "{shown}");
    }
}

#[test]
fn the_state_counts_who_did_not_answer() {
    let mut facts = facts(vec![node(2), node(2)], vec![server(None, (2, 2))]);
    silent(&mut facts.nodes[0], "node-unreachable");
    silent(&mut facts.api_servers[0], "api-server-unreachable");
    let line = line(&View::of(&facts));
    assert!(line.ends_with("No answer from 2: see below."), "{line}");
}

#[test]
fn the_state_says_what_is_left() {
    for (older, unknown, says) in [
        (1, 0, "1 object is left under older versions."),
        (2, 0, "2 objects are left under older versions."),
        (0, 1, "It is not known which version 1 object needs."),
        (
            2,
            3,
            "2 objects are left under older versions. It is not known which version 3 objects need.",
        ),
    ] {
        let left = Some(Left { older, unknown });
        let view = View::of(&Facts { left, ..facts(vec![node(2)], vec![]) });
        assert_eq!(line(&view), format!("All write version 2. {says}"));
    }
}

#[test]
fn the_page_before_a_rotation() {
    let api_servers = vec![server(Some((1, 5)), (1, 30)), server(None, (1, 2))];
    insta::assert_snapshot!(shown(&facts(vec![node(1), node(1)], api_servers)));
}

#[test]
fn the_page_when_a_node_lags() {
    insta::assert_snapshot!(shown(&facts(vec![waiting(10), node(1)], vec![])));
}

#[test]
fn the_page_before_the_takeover() {
    let saved = Node { ahead_s: None, ..waiting(10) };
    insta::assert_snapshot!(shown(&facts(vec![waiting(10), saved], vec![])));
}

#[test]
fn the_page_when_an_api_server_is_behind() {
    let api_servers = vec![server(Some((2, 5)), (2, 30)), server(Some((1, 5)), (1, 20))];
    insta::assert_snapshot!(shown(&facts(vec![node(2), node(2)], api_servers)));
}

#[test]
fn the_page_when_a_node_is_silent_and_another_one_fails() {
    let mut facts = facts(vec![node(2), node(2), node(2)], vec![]);
    silent(&mut facts.nodes[1], "node-unreachable");
    facts.nodes[2].answer.as_mut().unwrap().fault = Some(Fault {
        fails: true,
        code: "keeper-sealed".to_owned(),
        cause: "the keeper is sealed".to_owned(),
        remedy: "unseal it".to_owned(),
    });
    insta::assert_snapshot!(shown(&facts));
}

#[test]
fn the_page_when_all_write_the_new_version() {
    let api_servers = vec![server(Some((2, 5)), (2, 30))];
    insta::assert_snapshot!(shown(&facts(vec![node(2)], api_servers)));
}

#[test]
fn the_page_when_no_object_is_left() {
    insta::assert_snapshot!(shown(&Facts {
        left: Some(Left::default()),
        ..facts(vec![node(2)], vec![])
    }));
}
