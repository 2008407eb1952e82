//! The inventory for machines. `docs/prove.md` describes the fields; they are only added to.

use std::collections::BTreeMap;

use serde::Serialize;
use vault_kube_kms::domain::key::KekVersion;

use super::{Read, Report};
use crate::domain::{
    judgement::{KeyJudgement, Reason, Use, Verdict},
    needs::Needs,
    node::Node,
    tally::{Count, Group, State},
};

#[derive(Serialize)]
struct Inventory<'a> {
    source: &'a str,
    live: bool,
    objects: u64,
    seeds: u64,
    states: BTreeMap<&'static str, u64>,
    resources: Vec<Resource<'a>>,
    findings: Vec<Found<'a>>,
    backups: Vec<Backup<'a>>,
    nodes: Vec<NodeState<'a>>,
    judgement: Judged<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_safe: Option<bool>,
}

#[derive(Serialize)]
struct Resource<'a> {
    resource: &'a str,
    groups: Vec<GroupCount<'a>>,
}

#[derive(Serialize)]
struct GroupCount<'a> {
    state: &'static str,
    provider: &'a str,
    key_id: &'a str,
    keeper: Option<&'a str>,
    version: Option<u32>,
    objects: u64,
    seeds: u64,
    oldest: &'a str,
    oldest_revision: i64,
    newest_revision: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

#[derive(Serialize)]
struct Found<'a> {
    severity: &'static str,
    code: &'static str,
    text: &'a str,
}

#[derive(Serialize)]
struct Backup<'a> {
    name: &'a str,
    objects: u64,
    seeds: u64,
    states: BTreeMap<&'static str, u64>,
    needs: Vec<Needed<'a>>,
}

#[derive(Serialize)]
struct Needed<'a> {
    keeper: &'a str,
    version: u32,
    objects: u64,
}

#[derive(Serialize)]
struct NodeState<'a> {
    name: &'a str,
    at_s: i64,
    problem: Option<&'a str>,
    writes: Option<u32>,
    key_id: Option<&'a str>,
    writing_s: Option<u64>,
    next: Option<u32>,
}

#[derive(Serialize)]
struct Judged<'a> {
    keys: Vec<Key<'a>>,
    obstacles: Vec<Why<'a>>,
    missing: Vec<Why<'a>>,
    not_seen: [&'static str; 4],
}

#[derive(Serialize)]
struct Why<'a> {
    code: &'static str,
    text: &'a str,
}

#[derive(Serialize)]
struct Key<'a> {
    keeper: &'a str,
    /// The highest safe `min_decryption_version`. Absent when that cannot be promised.
    safe: Option<u32>,
    /// No higher version is safe. Absent when nothing can be said.
    at_most: Option<u32>,
    because: &'a [String],
    without_backups: Option<u32>,
    unneeded: Vec<u32>,
    versions: Vec<Version<'a>>,
}

#[derive(Serialize)]
struct Version<'a> {
    #[serde(rename = "version")]
    number: u32,
    objects: u64,
    backups: &'a BTreeMap<String, u64>,
    written_by: &'a [String],
    waits_on: &'a [String],
    archived_on: &'a [String],
    key_ids: Vec<&'a str>,
}

/// Returns the report as JSON.
pub(super) fn render(report: &Report) -> String {
    let inventory = Inventory {
        source: &report.read.name,
        live: report.is_live,
        objects: report.read.tally.objects(),
        seeds: report.read.tally.seeds(),
        states: states(&report.read),
        resources: resources(&report.read),
        findings: report
            .findings
            .iter()
            .map(|f| Found { severity: f.severity.name(), code: f.code, text: &f.text })
            .collect(),
        backups: report.backups.iter().map(|backup| of_backup(report, backup)).collect(),
        nodes: report.facts.nodes.iter().map(of_node).collect(),
        judgement: Judged {
            keys: report.judgement.keys.iter().map(of_key).collect(),
            obstacles: whys(&report.judgement.obstacles),
            missing: whys(&report.judgement.missing),
            not_seen: super::text::NOT_SEEN,
        },
        is_safe: report.asked.map(|(_, is_safe)| is_safe),
    };
    // Cannot fail: the report has only text and numbers.
    serde_json::to_string_pretty(&inventory).unwrap_or_default()
}

fn states(read: &Read) -> BTreeMap<&'static str, u64> {
    State::ALL.iter().map(|state| (state.name(), read.tally.in_state(*state))).collect()
}

fn resources(read: &Read) -> Vec<Resource<'_>> {
    read.tally
        .resources()
        .map(|(resource, groups)| Resource {
            resource,
            groups: groups.iter().map(of_group).collect(),
        })
        .collect()
}

fn of_group<'a>((group, count): (&'a Group, &'a Count)) -> GroupCount<'a> {
    GroupCount {
        state: group.state.name(),
        provider: &group.provider,
        key_id: &group.key_id,
        keeper: group.claim.as_ref().map(|claim| claim.keeper.as_str()),
        version: group.claim.as_ref().map(|claim| claim.version.get()),
        objects: count.objects,
        seeds: count.seeds,
        oldest: &count.oldest.1,
        oldest_revision: count.oldest.0,
        newest_revision: count.newest_revision,
        why: count.why.as_deref(),
    }
}

fn of_backup<'a>(report: &'a Report, backup: &'a Read) -> Backup<'a> {
    let needs = report.facts.backups.iter().find(|(name, _)| *name == backup.name);
    Backup {
        name: &backup.name,
        objects: backup.tally.objects(),
        seeds: backup.tally.seeds(),
        states: states(backup),
        needs: needs.map(|(_, needs)| needed(needs)).unwrap_or_default(),
    }
}

fn needed(needs: &Needs) -> Vec<Needed<'_>> {
    needs
        .keepers
        .iter()
        .flat_map(|(keeper, versions): (&String, &BTreeMap<_, _>)| {
            versions.iter().map(move |(version, need)| Needed {
                keeper,
                version: version.get(),
                objects: need.objects,
            })
        })
        .collect()
}

fn of_node((name, node): &(String, Node)) -> NodeState<'_> {
    NodeState {
        name,
        at_s: node.now.secs(),
        problem: node.fault.as_ref().map(|fault| fault.code.as_str()),
        writes: node.writes().map(|writer| writer.version.get()),
        key_id: node.writes().map(|writer| writer.key_id.as_str()),
        writing_s: node.writing_s,
        next: node.next().map(|(version, _)| version.get()),
    }
}

fn of_key(key: &KeyJudgement) -> Key<'_> {
    let (safe, at_most) = match key.verdict {
        Verdict::Safe(version) => (Some(version.get()), Some(version.get())),
        Verdict::AtMost(version) => (None, Some(version.get())),
        Verdict::Unknown => (None, None),
    };
    Key {
        keeper: &key.keeper,
        safe,
        at_most,
        because: &key.because,
        without_backups: key.without_backups.map(KekVersion::get),
        unneeded: key.unneeded().map(KekVersion::get).collect(),
        versions: key
            .versions
            .iter()
            .map(|(version, usage): (_, &Use)| Version {
                number: version.get(),
                objects: usage.objects,
                backups: &usage.backups,
                written_by: &usage.written_by,
                waits_on: &usage.waits_on,
                archived_on: &usage.archived_on,
                key_ids: usage.key_ids.iter().map(String::as_str).collect(),
            })
            .collect(),
    }
}

fn whys(reasons: &[Reason]) -> Vec<Why<'_>> {
    reasons.iter().map(|reason| Why { code: reason.code, text: &reason.text }).collect()
}
