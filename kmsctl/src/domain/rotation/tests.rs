use std::collections::BTreeMap;

use vault_kube_kms::domain::key::KekVersion;

use super::*;
use crate::domain::{
    envelope::Envelope,
    node::{Fault, KeyVersion, Role},
    stored::Stored,
    tally::tests::{key_id, ours},
};

/// The time on all machines.
const NOW: i64 = 1_767_225_600;

fn at(seconds: i64) -> UnixTime {
    UnixTime::from_secs(NOW + seconds)
}

fn hash(version: u32) -> String {
    format!("sha256:{version:02}")
}

/// A version that was made `ago` seconds before now and writes 60 s after that.
fn version(number: u32, role: Role, ago: i64) -> KeyVersion {
    KeyVersion {
        version: KekVersion::new(number).unwrap(),
        key_id: format!("v{number}.x"),
        hash: hash(number),
        role,
        created: Some(at(-ago)),
        writes_from: Some(at(60 - ago)),
    }
}

/// A healthy node. `newest` writes and all versions below it read.
pub(crate) fn node(newest: u32) -> Node {
    let role = |number| if number == newest { Role::Writes } else { Role::Reads };
    let versions = (1..=newest).rev().map(|number| version(number, role(number), 900));
    Node {
        process: String::new(),
        now: at(0),
        ahead_s: Some(0),
        fault: None,
        versions: versions.collect(),
        writing_s: Some(840),
        key_read_s_ago: Some(4),
    }
}

/// A node that writes version 1 and has read version 2, which was made `ago` seconds before now.
pub(crate) fn waiting(ago: i64) -> Node {
    let versions = vec![version(2, Role::Waits, ago), version(1, Role::Writes, 900)];
    Node { versions, ..node(1) }
}

fn used(version: u32, ago: i64) -> Use {
    Use { provider: "vault-kube-kms".to_owned(), hash: hash(version), at: at(-ago) }
}

/// An API server that last wrote and last got Status with these versions, so many seconds ago.
pub(crate) fn server(wrote: Option<(u32, i64)>, told: (u32, i64)) -> ApiServer {
    ApiServer {
        now: at(0),
        process: None,
        written: wrote.into_iter().map(|(version, ago)| used(version, ago)).collect(),
        told: vec![used(told.0, told.1)],
        seeds: vec![("vault-kube-kms".to_owned(), 3)],
    }
}

pub(crate) fn facts(nodes: Vec<Node>, api_servers: Vec<ApiServer>) -> Facts {
    fn named<T>(name: &str, all: Vec<T>) -> Vec<Asked<T>> {
        let all = all.into_iter().enumerate();
        all.map(|(index, one)| Asked { name: format!("{name}{}", index + 1), answer: Ok(one) })
            .collect()
    }
    Facts {
        nodes: named("cp-", nodes),
        api_servers: named("https://10.0.0.", api_servers),
        expected: None,
        left: None,
        now: at(0),
    }
}

pub(crate) fn silent<T>(asked: &mut Asked<T>, code: &'static str) {
    asked.answer = Err(Problem::new(code, "connection refused", "start it"));
}

fn codes(view: &View) -> Vec<(&str, &str, bool)> {
    view.findings.iter().map(|of| (of.name.as_str(), of.code.as_str(), of.blocks)).collect()
}

#[test]
fn names_the_phase() {
    let complete = server(Some((2, 5)), (2, 30));
    for (what, nodes, servers, phase, is_complete) in [
        ("no node", vec![], vec![], Phase::NoAnswer, false),
        ("one version", vec![node(1), node(1)], vec![], Phase::Steady { version: 1 }, true),
        (
            "not read by one",
            vec![node(1), waiting(10)],
            vec![],
            Phase::Unread { version: 2 },
            false,
        ),
        (
            "a takeover",
            vec![waiting(10), waiting(9)],
            vec![],
            Phase::Takeover { version: 2, in_s: 51 },
            false,
        ),
        (
            "one has taken over, one has not proven it",
            vec![node(2), waiting(70)],
            vec![],
            Phase::Takeover { version: 2, in_s: 0 },
            false,
        ),
        (
            "an API server writes under the old id",
            vec![node(2), node(2)],
            vec![complete.clone(), server(Some((1, 5)), (1, 20))],
            Phase::ApiServers { version: 2, within_s: 40 },
            false,
        ),
        (
            "an API server cannot make a seed for the new id",
            vec![node(2)],
            vec![server(Some((1, 5)), (2, 8))],
            Phase::ApiServers { version: 2, within_s: 52 },
            false,
        ),
        (
            "an API server knows the new id and has not written since",
            vec![node(2)],
            vec![server(Some((1, 500)), (2, 8))],
            Phase::Rewrite { version: 2, left: None, unknown: None },
            true,
        ),
        (
            "an API server that has never written",
            vec![node(2)],
            vec![server(None, (2, 8))],
            Phase::Rewrite { version: 2, left: None, unknown: None },
            true,
        ),
        (
            "all",
            vec![node(2)],
            vec![complete],
            Phase::Rewrite { version: 2, left: None, unknown: None },
            true,
        ),
        (
            "no API server was asked, long after",
            vec![node(2)],
            vec![],
            Phase::Rewrite { version: 2, left: None, unknown: None },
            true,
        ),
    ] {
        let view = View::of(&facts(nodes, servers));
        assert_eq!((&view.phase, view.is_complete()), (&phase, is_complete), "{what}");
    }
}

/// A late node has written the version for some seconds, although the version is old: its API server
/// may still use a seed of the version before.
#[test]
fn without_all_api_servers_it_waits_for_the_node_that_wrote_last() {
    let late = || Node { writing_s: Some(5), ..node(2) };
    let complete = || server(Some((2, 1)), (2, 2));
    for (what, servers) in [("none was asked", vec![]), ("one was asked", vec![complete()])] {
        let view = View::of(&facts(vec![node(2), late()], servers));
        assert_eq!(view.phase, Phase::Settling { version: 2, in_s: Some(595) }, "{what}");
        assert!(!view.is_complete(), "{what}");
    }
    let view = View::of(&facts(vec![node(2), late()], vec![complete(), complete()]));
    assert_eq!(view.phase, Phase::Rewrite { version: 2, left: None, unknown: None });
    assert!(view.is_complete());
    // The count of objects is not the last one: an API server may add objects of the old version.
    let counted = Facts { left: Some(Left::default()), ..facts(vec![late()], vec![]) };
    assert_eq!(View::of(&counted).phase, Phase::Settling { version: 2, in_s: Some(595) });
}

/// Providers of earlier releases do not say for how long they have written. External keys of OpenBao
/// have no time of creation.
#[test]
fn without_the_time_of_a_node_the_age_of_the_version_counts() {
    let silent = |writes_from: Option<i64>, created: Option<i64>| {
        let mut silent = Node { writing_s: None, ..node(2) };
        silent.versions[0].writes_from = writes_from.map(|ago| at(-ago));
        silent.versions[0].created = created.map(|ago| at(-ago));
        silent
    };
    for (node, expected) in [
        (silent(Some(40), Some(100)), Some(Some(560))),
        (silent(None, Some(100)), Some(Some(500))),
        (silent(Some(600), Some(660)), None),
        (silent(None, None), Some(None)),
    ] {
        let view = View::of(&facts(vec![self::node(2), node], vec![]));
        let expected = expected
            .map_or(Phase::Rewrite { version: 2, left: None, unknown: None }, |in_s| {
                Phase::Settling { version: 2, in_s }
            });
        assert_eq!(view.phase, expected);
    }
}

#[test]
fn counted_objects_decide_whether_it_is_done() {
    let with = |left| Facts { left, ..facts(vec![node(2)], vec![]) };
    let left = |older, unknown| View::of(&with(Some(Left { older, unknown }))).phase;
    assert_eq!(left(7, 1), Phase::Rewrite { version: 2, left: Some(7), unknown: Some(1) });
    assert_eq!(left(0, 0), Phase::Done { version: 2 });
}

fn tally(objects: &[Stored<'_>]) -> Tally {
    let mut tally = Tally::default();
    for (number, stored) in objects.iter().enumerate() {
        let key = format!("/registry/secrets/default/{number}");
        tally.add(key.as_bytes(), "/registry/", stored, 1).unwrap();
    }
    tally
}

#[test]
fn counts_what_has_another_key_id() {
    let stored =
        [1, 1, 2].map(|version| ours(&key_id(version, "x"), &format!("vault:v{version}:AA")));
    let left = |version: u32, letter| {
        let newest = KeyVersion {
            key_id: key_id(version, letter),
            ..self::version(version, Role::Writes, 900)
        };
        Left::of(&tally(&stored), &newest).older
    };
    assert_eq!((left(2, "x"), left(1, "x")), (2, 1));
    assert_eq!(left(2, "y"), 3, "another key has a version of this number");
}

/// Another plugin on the same key of Transit has objects of version 1 too. Where it is not known which
/// version an object needs, no version is safe.
#[test]
fn counts_what_is_not_under_the_newest_version_whatever_wrote_it() {
    let theirs = |seed: &str| {
        let Stored::KmsV2(ours) = ours("transit-key", seed) else { panic!("not an envelope") };
        Stored::KmsV2(Envelope { annotations: BTreeMap::new(), ..ours })
    };
    let newest = KeyVersion { key_id: key_id(2, "x"), ..version(2, Role::Writes, 900) };
    for (what, stored, older, unknown) in [
        ("of another plugin", theirs("vault:v1:AA"), 1, 0),
        ("of another plugin, under the newest version", theirs("vault:v2:AA"), 0, 0),
        ("of a plugin whose seeds name no version", theirs("AA"), 0, 1),
        ("of KMS v1", Stored::Other("kms/v1/other".into()), 0, 1),
        ("not readable", Stored::Unreadable("damaged".into()), 0, 1),
        ("with an id and a seed of two versions", ours(&key_id(2, "x"), "vault:v1:AA"), 0, 1),
        ("with a seed that names no version", ours(&key_id(2, "x"), "AA"), 0, 1),
        ("of a key of the API server", Stored::Other("aescbc/v1/key1".into()), 0, 0),
        ("in clear", Stored::Clear, 0, 0),
    ] {
        let left = Left::of(&tally(&[stored]), &newest);
        assert_eq!(left, Left { older, unknown }, "{what}");
        let is_done = matches!(
            View::of(&Facts { left: Some(left), ..facts(vec![node(2)], vec![]) }).phase,
            Phase::Done { .. }
        );
        assert_eq!(is_done, older + unknown == 0, "{what}");
    }
}

#[test]
fn an_expected_version_that_no_node_has_is_unread() {
    let facts = Facts { expected: Some(2), ..facts(vec![node(1)], vec![]) };
    let view = View::of(&facts);
    assert_eq!(view.phase, Phase::Unread { version: 2 });
    assert_eq!(codes(&view), [("cp-1", "version-unread", true)]);
    let reached = Facts { nodes: self::facts(vec![node(3)], vec![]).nodes, ..facts };
    assert!(View::of(&reached).is_complete());
}

#[test]
fn archived_versions_need_no_rewrite() {
    let mut alone = node(3);
    alone.versions.iter_mut().skip(1).for_each(|version| version.role = Role::Archived);
    assert_eq!(View::of(&facts(vec![alone], vec![])).phase, Phase::Steady { version: 3 });
}

/// A node with another mount, key or lineage has other ids for the same versions.
#[test]
fn nodes_with_different_keys_are_found() {
    let mut other = node(2);
    for version in &mut other.versions {
        version.key_id.push('y');
        version.hash.push('y');
    }
    let view = View::of(&facts(vec![node(2), other], vec![]));
    assert_eq!(view.phase, Phase::DifferentKeys { version: 2 });
    assert_eq!(codes(&view), [("cp-1", "different-keys", true), ("cp-2", "different-keys", true)]);
    assert!(!view.is_complete());
}

#[test]
fn a_silent_node_hides_no_other_and_blocks_the_end() {
    let mut facts =
        facts(vec![node(2), node(2)], vec![server(Some((2, 1)), (2, 2)), server(None, (2, 2))]);
    silent(&mut facts.nodes[0], "node-unreachable");
    silent(&mut facts.api_servers[1], "api-server-unreachable");
    let view = View::of(&facts);
    assert_eq!(view.phase, Phase::Rewrite { version: 2, left: None, unknown: None });
    assert!(!view.is_complete());
    let expected =
        [("cp-1", "node-unreachable", true), ("https://10.0.0.2", "api-server-unreachable", true)];
    assert_eq!(codes(&view), expected);
}

#[test]
fn a_fault_has_the_words_of_the_provider() {
    let fault = |fails| {
        let text = |text: &str| text.to_owned();
        let (code, cause) = (text("keeper-sealed"), text("it is sealed"));
        let fault = Some(Fault { fails, code, cause, remedy: text("unseal it") });
        View::of(&facts(vec![Node { fault, ..node(2) }], vec![]))
    };
    assert_eq!(codes(&fault(true)), [("cp-1", "keeper-sealed", true)]);
    assert!(!fault(true).is_complete());
    // It still writes.
    assert_eq!(codes(&fault(false)), [("cp-1", "keeper-sealed", false)]);
    assert!(fault(false).is_complete());
}

#[test]
fn a_node_that_reads_and_knows_less_has_a_keeper_that_lags() {
    let remedy = |read_s_ago| {
        let behind = Node { key_read_s_ago: read_s_ago, ..node(1) };
        let view = View::of(&facts(vec![behind, waiting(10)], vec![]));
        let [finding] = view.findings.as_slice() else { panic!("{view:?}") };
        (finding.code.clone(), finding.remedy.contains("lags"))
    };
    assert_eq!(remedy(Some(3)), ("version-unread".to_owned(), true));
    assert_eq!(remedy(Some(90)), ("version-unread".to_owned(), false));
    assert_eq!(remedy(None), ("version-unread".to_owned(), false));
}

#[test]
fn a_node_without_a_version_that_writes_is_found() {
    let mut stuck = node(1);
    stuck.versions[0].role = Role::Reads;
    let view = View::of(&facts(vec![stuck], vec![]));
    assert_eq!(codes(&view), [("cp-1", "no-version-writes", true)]);
    assert!(!view.is_complete());
}

#[test]
fn a_clock_that_is_off_is_named_and_blocks_nothing() {
    for (ahead, found) in [(5, false), (-5, false), (6, true), (-600, true), (i64::MIN, true)] {
        let view = View::of(&facts(vec![Node { ahead_s: Some(ahead), ..node(1) }], vec![]));
        assert_eq!(codes(&view).contains(&("cp-1", "clock-off", false)), found, "{ahead}");
        assert!(view.is_complete());
    }
}

#[test]
fn an_api_server_that_gets_no_status_is_found() {
    let view = View::of(&facts(vec![node(2)], vec![server(Some((2, 1)), (2, 151))]));
    assert_eq!(codes(&view), [("https://10.0.0.1", "status-missed", true)]);
    assert!(!view.is_complete());
}

/// An `EncryptionConfiguration` may have another plugin, or another key of this one.
#[test]
fn other_providers_of_an_api_server_do_not_count() {
    let mut both = server(Some((2, 5)), (2, 30));
    for uses in [&mut both.written, &mut both.told] {
        uses.push(Use { provider: "other".to_owned(), hash: "sha256:99".to_owned(), at: at(-1) });
    }
    both.seeds.push(("other".to_owned(), 500));
    let view = View::of(&facts(vec![node(2)], vec![both.clone()]));
    assert!(view.is_complete(), "{view:?}");
    assert_eq!(view.api_servers[0].seeds, Some(3));
    // None of them is of these nodes.
    for uses in [&mut both.written, &mut both.told] {
        uses.remove(0);
    }
    let view = View::of(&facts(vec![node(2)], vec![both]));
    assert_eq!(codes(&view), [("https://10.0.0.1", "foreign-key-id", true)]);
    assert!(!view.is_complete());
}

/// Metrics that are read through a load balancer are those of any API server
/// (kubernetes/kubernetes#117726).
#[test]
fn one_api_server_under_two_names_is_found() {
    let named = |process: &str| ApiServer {
        process: Some(process.to_owned()),
        ..server(Some((2, 5)), (2, 30))
    };
    let view = View::of(&facts(vec![node(2)], vec![named("a 1"), named("b 1"), named("a 1")]));
    assert_eq!(codes(&view), [("https://10.0.0.3", "same-api-server", true)]);
}
