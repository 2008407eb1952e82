use proptest::prelude::*;
use vault_kube_kms::domain::time::UnixTime;

use super::*;
use crate::domain::{
    node::KeyVersion,
    place::DEFAULT_PREFIX,
    stored::Stored,
    tally::{
        Tally,
        tests::{key_id, ours},
    },
};

fn version(number: u32) -> KekVersion {
    KekVersion::new(number).unwrap()
}

/// Returns the needs of objects of our plugin, given as version and letter of the key id.
fn needs(objects: &[(u32, &str)]) -> Needs {
    let stored = objects
        .iter()
        .map(|(number, letter)| ours(&key_id(*number, letter), &format!("vault:v{number}:AAAA")));
    needs_of(&stored.collect::<Vec<_>>())
}

fn needs_of(objects: &[Stored<'_>]) -> Needs {
    let mut tally = Tally::default();
    for (index, stored) in (0_i64..).zip(objects) {
        let key = format!("/registry/secrets/default/s{index}");
        tally.add(key.as_bytes(), DEFAULT_PREFIX, stored, index).unwrap();
    }
    Needs::of(&tally)
}

/// Returns a node that knows the versions from `lowest` to `highest`, and has written with
/// `writes` for `seconds`.
fn node(name: &str, (lowest, highest): (u32, u32), writes: u32, seconds: u64) -> (String, Node) {
    let role = |number: u32| match number {
        _ if number == writes => Role::Writes,
        _ if number > writes => Role::Waits,
        _ if number < lowest => Role::Archived,
        _ => Role::Reads,
    };
    let now = UnixTime::from_secs(1_700_000_000);
    let known = |number| KeyVersion {
        version: version(number),
        key_id: key_id(number, "a"),
        hash: String::new(),
        role: role(number),
        created: None,
        writes_from: (number > writes).then_some(UnixTime::from_secs(1_700_000_020)),
    };
    let state = Node {
        process: String::new(),
        now,
        ahead_s: None,
        fault: None,
        versions: (1..=highest).rev().map(known).collect(),
        writing_s: Some(seconds),
        key_read_s_ago: Some(1),
    };
    (name.to_owned(), state)
}

fn settled(writes: u32) -> (String, Node) {
    node("node-1", (1, writes), writes, 3_600)
}

fn codes(reasons: &[Reason]) -> Vec<&'static str> {
    reasons.iter().map(|reason| reason.code).collect()
}

fn only(facts: &Facts) -> (KeyJudgement, Judgement) {
    let judgement = Judgement::of(facts);
    let [key] = judgement.keys.as_slice() else { panic!("{judgement:?}") };
    (key.clone(), judgement.clone())
}

#[test]
fn the_lowest_needed_version_is_the_highest_safe_one() {
    let live = |objects| Some(needs(objects));
    for (objects, backup, writers, expected) in [
        (&[(3, "a"), (3, "a")][..], &[][..], &[3][..], 3),
        (&[(2, "a"), (3, "a")], &[], &[3], 2),
        // A backup needs an older version than the cluster.
        (&[(3, "a")], &[(1, "a"), (3, "a")], &[3], 1),
        // A node is behind: it goes on writing an older version.
        (&[(3, "a")], &[], &[3, 2], 2),
        // No object is stored yet.
        (&[], &[], &[2], 2),
    ] {
        let facts = Facts {
            live: live(objects),
            backups: vec![("snap.db".to_owned(), needs(backup))],
            nodes: writers.iter().map(|writes| settled(*writes)).collect(),
            api_servers: 0,
            unread: Vec::new(),
        };
        let (key, judgement) = only(&facts);
        assert_eq!(key.verdict, Verdict::Safe(version(expected)), "{objects:?} {judgement:?}");
        assert!(!key.because.is_empty(), "{judgement:?}");
        assert!(judgement.is_safe(version(expected)) && !judgement.is_safe(version(expected + 1)));
    }
}

#[test]
fn says_what_a_backup_costs() {
    let facts = Facts {
        live: Some(needs(&[(3, "a")])),
        backups: vec![("old.db".to_owned(), needs(&[(1, "a")]))],
        nodes: vec![settled(3)],
        api_servers: 0,
        unread: Vec::new(),
    };
    let (key, _) = only(&facts);
    assert_eq!(key.without_backups, Some(version(3)));
    assert_eq!(key.because, ["1 object needs it in the backup old.db"]);
    assert_eq!(key.unneeded().collect::<Vec<_>>(), [version(2)]);
}

#[test]
fn promises_nothing_while_a_fact_is_missing() {
    let all = Facts {
        live: Some(needs(&[(2, "a"), (3, "a")])),
        backups: Vec::new(),
        nodes: vec![settled(3)],
        api_servers: 0,
        unread: Vec::new(),
    };
    let changed = |change: fn(&mut Node)| {
        let (name, mut node) = settled(3);
        change(&mut node);
        (name, node)
    };
    let nothing_written = changed(|node| node.versions.clear());
    let says_no_time = changed(|node| node.writing_s = None);
    for (facts, missing) in [
        (Facts { nodes: Vec::new(), ..all.clone() }, "no-node"),
        (
            Facts { live: None, backups: vec![("a".into(), needs(&[(2, "a")]))], ..all.clone() },
            "live-not-read",
        ),
        (Facts { nodes: vec![node("n", (1, 3), 3, 599)], ..all.clone() }, "node-changed"),
        (Facts { nodes: vec![says_no_time], ..all.clone() }, "node-says-no-time"),
        (Facts { nodes: vec![settled(3), nothing_written], ..all.clone() }, "node-writes-nothing"),
        (Facts { unread: vec![Reason::new("resources", "some")], ..all.clone() }, "resources"),
    ] {
        let (key, judgement) = only(&facts);
        assert_eq!(key.verdict, Verdict::AtMost(version(2)), "{missing}");
        assert_eq!(codes(&judgement.missing), [missing]);
        assert!(!judgement.is_safe(version(1)));
    }
    assert_eq!(only(&all).0.verdict, Verdict::Safe(version(2)));
}

/// The other plugin may use the same key, and go on writing with any version.
#[test]
fn promises_nothing_while_another_plugin_has_objects() {
    let Stored::KmsV2(mut foreign) = ours("transit-key-1", "vault:v2:AAAA") else { panic!() };
    foreign.annotations.clear();
    let foreign = Stored::KmsV2(foreign);
    let facts = Facts {
        live: Some(needs_of(&[ours(&key_id(3, "a"), "vault:v3:AAAA"), foreign])),
        backups: Vec::new(),
        nodes: vec![settled(3)],
        api_servers: 0,
        unread: Vec::new(),
    };
    let (key, judgement) = only(&facts);
    assert_eq!(key.verdict, Verdict::AtMost(version(2)));
    assert_eq!(codes(&judgement.missing), ["other-plugin-writes"]);
}

#[test]
fn says_nothing_when_the_version_of_an_object_is_not_known() {
    for unclear in [
        // The key id and the wrapped seed name different versions.
        ours(&key_id(3, "a"), "vault:v2:AAAA"),
        ours(&key_id(3, "a"), "kms-seal/1"),
        Stored::Unreadable("damaged".to_owned()),
    ] {
        let mut facts = Facts {
            live: Some(needs_of(&[ours(&key_id(3, "a"), "vault:v3:AAAA"), unclear])),
            backups: Vec::new(),
            nodes: vec![settled(3)],
            api_servers: 0,
            unread: Vec::new(),
        };
        let (key, judgement) = only(&facts);
        assert_eq!(key.verdict, Verdict::Unknown, "{judgement:?}");
        assert_eq!(codes(&judgement.obstacles), ["version-not-known"]);
        assert!(judgement.obstacles[0].text.contains("secrets/default/s1"), "{judgement:?}");
        // The same in a backup.
        let unclear = facts.live.replace(needs(&[(3, "a")])).unwrap();
        facts.backups.push(("snap.db".to_owned(), unclear));
        let (key, judgement) = only(&facts);
        assert_eq!(key.verdict, Verdict::Unknown, "{judgement:?}");
        assert!(judgement.obstacles[0].text.contains("the backup snap.db"), "{judgement:?}");
    }
}

#[test]
fn judges_the_keys_of_different_keepers_apart() {
    let facts = Facts {
        live: Some(needs_of(&[
            ours(&key_id(1, "l"), "local:v1:AAAA"),
            ours(&key_id(3, "a"), "vault:v3:AAAA"),
        ])),
        backups: Vec::new(),
        nodes: vec![settled(3)],
        api_servers: 0,
        unread: Vec::new(),
    };
    let judgement = Judgement::of(&facts);
    let verdicts: Vec<_> =
        judgement.keys.iter().map(|key| (key.keeper.as_str(), key.verdict.clone())).collect();
    assert_eq!(
        verdicts,
        [("local", Verdict::Safe(version(1))), ("vault", Verdict::Safe(version(3)))]
    );
    assert!(judgement.is_safe(version(3)));
}

#[test]
fn flags_two_keys_that_have_one_version_number() {
    let facts = Facts {
        live: Some(needs(&[(2, "a"), (2, "b"), (3, "a")])),
        backups: Vec::new(),
        nodes: vec![settled(3)],
        api_servers: 0,
        unread: Vec::new(),
    };
    let (key, judgement) = only(&facts);
    assert_eq!(codes(&judgement.notes), ["two-keys"]);
    assert_eq!(key.verdict, Verdict::Safe(version(2)), "the lowest version of both");
}

#[test]
fn names_objects_whose_version_is_already_archived() {
    let facts = Facts {
        live: Some(needs(&[(1, "a"), (3, "a")])),
        backups: Vec::new(),
        nodes: vec![node("node-1", (2, 3), 3, 3_600)],
        api_servers: 0,
        unread: Vec::new(),
    };
    // The provider may have started before or after the version was archived.
    let mut restarted = facts.clone();
    restarted.nodes[0].1.versions.retain(|known| known.role != Role::Archived);
    for facts in [facts, restarted] {
        let (key, judgement) = only(&facts);
        assert_eq!(codes(&judgement.broken), ["version-archived"]);
        assert_eq!(key.verdict, Verdict::Safe(version(1)));
    }
}

#[test]
fn notes_a_rotation_in_progress() {
    let facts = Facts {
        live: Some(needs(&[(2, "a")])),
        backups: Vec::new(),
        nodes: vec![node("node-1", (1, 3), 2, 3_600), node("node-2", (1, 3), 3, 3_600)],
        api_servers: 0,
        unread: Vec::new(),
    };
    let (key, judgement) = only(&facts);
    assert_eq!(codes(&judgement.notes), ["node-behind", "next-version"]);
    assert_eq!(key.verdict, Verdict::Safe(version(2)));
}

/// An object: its version, and what its key id names if that differs.
type Object = (u32, Option<u32>);

fn stored((number, named): Object) -> Stored<'static> {
    ours(&key_id(named.unwrap_or(number), "a"), &format!("vault:v{number}:AAAA"))
}

/// Live objects, the objects of backups, and nodes: what they write, and for how many seconds.
type Drawn = (Vec<Object>, Vec<Vec<Object>>, Vec<(u32, u64)>);

fn facts() -> impl Strategy<Value = Drawn> {
    let object = (1..6_u32, prop::option::weighted(0.03, 1..6_u32));
    let objects = prop::collection::vec(object, 0..5);
    let nodes = prop::collection::vec((1..6_u32, 0..5_000_u64), 0..3);
    (objects.clone(), prop::collection::vec(objects, 0..3), nodes)
}

fn gathered(live: &[Object], backups: &[Vec<Object>], nodes: &[(u32, u64)]) -> Facts {
    let needs_of =
        |objects: &[Object]| needs_of(&objects.iter().copied().map(stored).collect::<Vec<_>>());
    Facts {
        live: Some(needs_of(live)),
        backups: (1..)
            .zip(backups)
            .map(|(number, objects)| (format!("backup-{number}"), needs_of(objects)))
            .collect(),
        nodes: (1..)
            .zip(nodes)
            .map(|(number, (writes, seconds))| {
                node(&format!("node-{number}"), (1, *writes), *writes, *seconds)
            })
            .collect(),
        api_servers: 0,
        unread: Vec::new(),
    }
}

proptest! {
    /// A promise is kept: whatever is stored or may still be written needs the promised version or
    /// a higher one. And it is not lower than it must be.
    #[test]
    fn a_safe_version_loses_nothing((live, backups, nodes) in facts()) {
        let judgement = Judgement::of(&gathered(&live, &backups, &nodes));
        let objects = || live.iter().chain(backups.iter().flatten());
        for key in &judgement.keys {
            let (Verdict::Safe(verdict) | Verdict::AtMost(verdict)) = key.verdict else {
                prop_assert!(objects().any(|(number, named)| named.is_some_and(|n| n != *number)));
                continue;
            };
            let needed = objects().map(|(number, _)| *number);
            let written = nodes.iter().map(|(writes, _)| *writes);
            prop_assert_eq!(Some(verdict.get()), needed.chain(written).min());
            if matches!(key.verdict, Verdict::Safe(_)) {
                prop_assert!(!nodes.is_empty());
                prop_assert!(nodes.iter().all(|(_, seconds)| *seconds >= SETTLED.as_secs()));
            }
        }
    }

    /// A further fact never makes a version safe that was not safe before, unless the fact was
    /// missing.
    #[test]
    fn a_further_object_never_raises_the_verdict(
        (live, backups, nodes) in facts(),
        further in 1..6_u32,
    ) {
        let before = Judgement::of(&gathered(&live, &backups, &nodes));
        let mut more = live.clone();
        more.push((further, None));
        let after = Judgement::of(&gathered(&more, &backups, &nodes));
        for number in 1..6 {
            prop_assert!(
                !after.is_safe(version(number)) || before.is_safe(version(number)) || before.keys.is_empty()
            );
        }
    }
}

#[test]
fn objects_of_kms_v1_are_a_doubt() {
    // A plugin of KMS v1 may have wrapped their keys with the same key of Transit.
    let of_v1 = Stored::Other("kms/v1/old".to_owned());
    let new = ours(&key_id(3, "a"), "vault:v3:AAAA");
    let facts = Facts {
        live: Some(needs_of(&[new.clone(), of_v1])),
        nodes: vec![settled(3)],
        ..Facts::default()
    };
    let (key, judgement) = only(&facts);
    assert_eq!(key.verdict, Verdict::Unknown);
    assert_eq!(codes(&judgement.obstacles), ["version-not-known"]);
    assert!(!judgement.is_safe(version(3)));
    let local = Stored::Other("aescbc/v1/key1".to_owned());
    let facts = Facts { live: Some(needs_of(&[new, local])), nodes: vec![settled(3)], ..facts };
    assert_eq!(only(&facts).0.verdict, Verdict::Safe(version(3)));
}

#[test]
fn an_api_server_whose_node_is_not_given_is_missing() {
    let facts = |api_servers| Facts {
        live: Some(needs(&[(3, "a")])),
        nodes: vec![settled(3)],
        api_servers,
        ..Facts::default()
    };
    for (api_servers, expected) in [(0, &[][..]), (1, &[]), (3, &["nodes-left-out"])] {
        let (key, judgement) = only(&facts(api_servers));
        assert_eq!(codes(&judgement.missing), expected);
        let is_safe = matches!(key.verdict, Verdict::Safe(_));
        assert_eq!(is_safe, expected.is_empty(), "{api_servers}");
    }
}
