//! Judges what the nodes and the API servers say.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use vault_kube_kms::domain::time::UnixTime;

use super::{
    ApiServer, Asked, CLOCK_OFF_S, Facts, Left, READ_INTERVAL_S, STATUS_INTERVAL_S,
    STATUS_MISSED_S, Use,
};
use crate::domain::node::{KeyVersion, Node, Role, SETTLED};

/// How far the rotation is, on all nodes and API servers that answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "phase")]
pub enum Phase {
    /// No node answered.
    NoAnswer,
    /// Two nodes have different key ids for one version.
    DifferentKeys {
        /// The version.
        version: u32,
    },
    /// A node does not know the newest version.
    Unread {
        /// The newest version, or the expected one.
        version: u32,
    },
    /// The newest version waits.
    Takeover {
        /// The newest version.
        version: u32,
        /// Seconds until every node writes with it. 0 when a node still proves it.
        in_s: u64,
    },
    /// An API server uses an older key id.
    ApiServers {
        /// The newest version.
        version: u32,
        /// Seconds within which an API server with a healthy provider changes to it.
        within_s: u64,
    },
    /// Every node writes the newest version. Fewer API servers were asked than there are nodes, and
    /// another one may still be behind.
    Settling {
        /// The newest version.
        version: u32,
        /// Seconds until every API server writes it. `None` when it is not known since when a node
        /// writes it.
        in_s: Option<u64>,
    },
    /// All write the newest version. Objects of older versions are left, or were not counted.
    Rewrite {
        /// The newest version.
        version: u32,
        /// The objects that are stored under older versions. `None` when they were not counted.
        left: Option<u64>,
        /// The objects for which it is not known which version they need. `None` when they were not
        /// counted.
        unknown: Option<u64>,
    },
    /// All write the newest version, and no object is left under an older version.
    Done {
        /// The newest version.
        version: u32,
    },
    /// All write the only usable version.
    Steady {
        /// The version.
        version: u32,
    },
}

impl Phase {
    /// Returns whether all nodes that answered write the newest version, and so do the API servers:
    /// those that answered, and by the time that has passed the others.
    #[must_use]
    pub const fn all_write_newest(&self) -> bool {
        matches!(self, Self::Rewrite { .. } | Self::Done { .. } | Self::Steady { .. })
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The node or API server.
    pub name: String,
    /// Whether it is a node.
    pub on_node: bool,
    /// The stable code. For a fault of a provider this is the provider's code.
    pub code: String,
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub remedy: String,
    /// Whether the rotation cannot be called complete while this is so.
    pub blocks: bool,
}

/// A node in the view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeRow {
    /// The name of the node.
    pub name: String,
    /// `healthy`, the code of its problem, or `no answer`.
    pub state: String,
    /// The version that writes.
    pub writes: Option<u32>,
    /// The newest version that it knows.
    pub newest: Option<u32>,
    /// Seconds until its newest version writes. `None` when no change is due.
    pub takes_over_in_s: Option<u64>,
    /// Seconds since the node last read the key.
    pub key_read_s_ago: Option<u64>,
    /// How far its clock is ahead of this machine's, in seconds.
    pub clock_ahead_s: Option<i64>,
}

/// An API server in the view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiServerRow {
    /// The name of the API server.
    pub name: String,
    /// Whether it answered.
    pub answered: bool,
    /// The version of the last object that it wrote.
    pub wrote: Option<u32>,
    /// The version in the last Status that it got.
    pub told: Option<u32>,
    /// Seconds since that Status.
    pub told_s_ago: Option<u64>,
    /// The seeds that it has in memory.
    pub seeds: Option<u64>,
}

/// The view of a rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct View {
    /// How far it is.
    #[serde(flatten)]
    pub phase: Phase,
    /// What is not as it should be. The worst comes first.
    pub findings: Vec<Finding>,
    /// The nodes, in the order of the flags.
    pub nodes: Vec<NodeRow>,
    /// The API servers, in the order of the flags.
    pub api_servers: Vec<ApiServerRow>,
}

impl View {
    /// Judges `facts`.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let known: Vec<(&str, &Node)> = answered(&facts.nodes).collect();
        let versions = versions(&known);
        let newest = known.iter().filter_map(|(_, node)| node.newest()).map(number).max();
        let newest = if known.is_empty() { None } else { newest.max(facts.expected) };
        let mut findings = node_findings(facts, newest);
        let servers: Vec<(&str, Server)> = answered(&facts.api_servers)
            .map(|(name, s)| (name, Server::of(s, &versions)))
            .collect();
        let phase = phase(facts, &known, newest, &servers);
        findings.extend(api_server_findings(facts, &servers));
        findings.sort_by_key(|finding| !finding.blocks);
        Self {
            phase,
            findings,
            nodes: facts.nodes.iter().map(node_row).collect(),
            api_servers: facts.api_servers.iter().map(|s| api_server_row(s, &servers)).collect(),
        }
    }

    /// Returns whether every node and every API server answered and writes the newest version.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.phase.all_write_newest() && !self.findings.iter().any(|finding| finding.blocks)
    }
}

const fn number(of: &KeyVersion) -> u32 {
    of.version.get()
}

fn answered<T>(asked: &[Asked<T>]) -> impl Iterator<Item = (&str, &T)> {
    asked.iter().filter_map(|one| Some((one.name.as_str(), one.answer.as_ref().ok()?)))
}

/// Returns the version of each hash that any node knows.
fn versions(nodes: &[(&str, &Node)]) -> BTreeMap<String, u32> {
    let all = nodes.iter().flat_map(|(_, node)| &node.versions);
    all.map(|version| (version.hash.clone(), number(version))).collect()
}

fn phase(
    facts: &Facts,
    nodes: &[(&str, &Node)],
    newest: Option<u32>,
    servers: &[(&str, Server)],
) -> Phase {
    let Some(version) = newest else { return Phase::NoAnswer };
    if let Some(version) = disputed(nodes) {
        return Phase::DifferentKeys { version };
    }
    if nodes.iter().any(|(_, node)| node.newest().is_none_or(|of| number(of) < version)) {
        return Phase::Unread { version };
    }
    if let Some(in_s) = nodes.iter().filter_map(|(_, node)| takeover(node)).max() {
        return Phase::Takeover { version, in_s };
    }
    if servers.iter().any(|(_, server)| server.current() != Some(version)) {
        let within = servers.iter().filter(|(_, server)| server.current() != Some(version));
        let within =
            within.map(|(_, server)| STATUS_INTERVAL_S.saturating_sub(server.told_s_ago()));
        return Phase::ApiServers { version, within_s: within.max().unwrap_or(STATUS_INTERVAL_S) };
    }
    let mut older = nodes.iter().flat_map(|(_, node)| &node.versions);
    if !older.any(|of| number(of) < version && of.role == Role::Reads) {
        return Phase::Steady { version };
    }
    // Each node has an API server of its own.
    if facts.api_servers.len() < facts.nodes.len() {
        let all = nodes.iter().map(|(_, node)| settles_in(node, facts.now));
        let in_s = all.reduce(|a, b| Some(a?.max(b?))).flatten();
        if in_s != Some(0) {
            return Phase::Settling { version, in_s };
        }
    }
    match facts.left {
        Some(Left { older: 0, unknown: 0 }) => Phase::Done { version },
        left => Phase::Rewrite {
            version,
            left: left.map(|left| left.older),
            unknown: left.map(|left| left.unknown),
        },
    }
}

/// Returns the seconds until the API server of `node` certainly writes the version of `node`. `None`
/// when it is not known since when the node writes it.
///
/// A node may write late, such as after an outage of its keeper. So the age of the version counts only
/// for a provider that does not say for how long it has written.
fn settles_in(node: &Node, now: UnixTime) -> Option<u64> {
    if let Some(since) = node.writing_s {
        return Some(SETTLED.as_secs().saturating_sub(since));
    }
    let writes = node.writes()?;
    let from = writes.writes_from.or(writes.created)?;
    let settled = from.secs().saturating_add_unsigned(SETTLED.as_secs());
    Some(UnixTime::from_secs(settled).since(now).as_secs())
}

/// Returns the newest version that has two key ids.
fn disputed(nodes: &[(&str, &Node)]) -> Option<u32> {
    let mut ids: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
    for version in nodes.iter().flat_map(|(_, node)| &node.versions) {
        ids.entry(number(version)).or_default().insert(&version.key_id);
    }
    ids.into_iter().rev().find(|(_, ids)| ids.len() > 1).map(|(version, _)| version)
}

/// Returns the seconds until the newest version of `node` writes. `None` when it writes already.
fn takeover(node: &Node) -> Option<u64> {
    let newest = node.newest().filter(|version| version.role != Role::Writes)?;
    let at = newest.writes_from.unwrap_or(node.now);
    // A started second counts.
    Some(u64::try_from(at.since(node.now).as_millis().div_ceil(1_000)).unwrap_or(u64::MAX))
}

fn node_findings(facts: &Facts, newest: Option<u32>) -> Vec<Finding> {
    let known: Vec<(&str, &Node)> = answered(&facts.nodes).collect();
    let mut findings = Vec::new();
    let mut find = |name: &str, code: &str, text: String, remedy: &str, blocks| {
        let (name, code, remedy) = (name.to_owned(), code.to_owned(), remedy.to_owned());
        findings.push(Finding { name, on_node: true, code, text, remedy, blocks });
    };
    if let Some(version) = disputed(&known) {
        for (name, node) in &known {
            let id = node.versions.iter().find(|of| number(of) == version).map(|of| &of.key_id);
            let id = id.map_or("no id", |id| id);
            find(
                name,
                "different-keys",
                format!("version {version} has the key_id {id} here and another one elsewhere"),
                "compare address, key path, --key-lineage and --key-generation of the nodes; they \
                 must be equal",
                true,
            );
        }
    }
    for node in &facts.nodes {
        let (name, node) = match &node.answer {
            Ok(answer) => (node.name.as_str(), answer),
            Err(problem) => {
                find(&node.name, problem.code, problem.cause.clone(), &problem.remedy, true);
                continue;
            }
        };
        if let Some(fault) = &node.fault {
            find(name, &fault.code, fault.cause.clone(), &fault.remedy, fault.fails);
        }
        if node.fault.is_none() && node.writes().is_none() {
            let remedy = "read the errors on its /statusz";
            find(name, "no-version-writes", "no version writes on this node".into(), remedy, true);
        }
        if let Some(newest) = newest
            && node.newest().is_none_or(|of| number(of) < newest)
        {
            let known = node
                .newest()
                .map_or("no version".to_owned(), |of| format!("version {}", of.version));
            let (text, remedy) = unread(node.key_read_s_ago, newest, &known);
            find(name, "version-unread", text, remedy, true);
        }
        if let Some(ahead) = node.ahead_s.filter(|ahead| ahead.unsigned_abs() > CLOCK_OFF_S) {
            find(
                name,
                "clock-off",
                format!("its clock is {} this machine's clock", offset(ahead)),
                "synchronise the clocks of the nodes and of this machine",
                false,
            );
        }
    }
    findings
}

fn unread(read_s_ago: Option<u64>, newest: u32, known: &str) -> (String, &'static str) {
    match read_s_ago {
        Some(ago) if ago <= READ_INTERVAL_S => (
            format!("it read the key {ago} s ago and knows {known}, not version {newest}"),
            "wait 20 s; if it stays, the keeper's endpoint that it asks lags: compare the key at \
             each endpoint",
        ),
        Some(ago) => (
            format!("it knows {known}, not version {newest}, and last read the key {ago} s ago"),
            "make its keeper reachable; the errors are on its /statusz",
        ),
        None => (
            format!("it knows {known}, not version {newest}, and has not read the key yet"),
            "make its keeper reachable; the errors are on its /statusz",
        ),
    }
}

/// Returns a difference of clocks in words, such as `7 s ahead of`.
#[must_use]
pub fn offset(ahead_s: i64) -> String {
    let direction = if ahead_s < 0 { "behind" } else { "ahead of" };
    format!("{} s {direction}", ahead_s.unsigned_abs())
}

/// What an API server does with the key of these nodes.
#[derive(Debug)]
struct Server {
    /// The last write, and its version. The version is `None` when no node knows its id.
    wrote: Option<(Option<u32>, UnixTime)>,
    /// The last Status, and its version.
    told: Option<(Option<u32>, UnixTime)>,
    now: UnixTime,
    seeds: Option<u64>,
}

impl Server {
    fn of(server: &ApiServer, versions: &BTreeMap<String, u32>) -> Self {
        // An EncryptionConfiguration may have several providers: only those that have used an id of
        // these nodes count.
        let ours = |of: &&Use| versions.contains_key(&of.hash);
        let uses = server.told.iter().chain(&server.written);
        let names: BTreeSet<&str> = uses.filter(ours).map(|of| of.provider.as_str()).collect();
        let last = |of: &[Use]| {
            let of = of.iter().filter(|of| names.contains(of.provider.as_str()));
            of.max_by_key(|of| of.at).cloned()
        };
        let (wrote, told) = (last(&server.written), last(&server.told));
        let known = |of: Use| (versions.get(&of.hash).copied(), of.at);
        let seeds = server.seeds.iter().filter(|(name, _)| names.contains(name.as_str()));
        Self {
            wrote: wrote.map(known),
            told: told.map(known),
            now: server.now,
            seeds: seeds.map(|(_, count)| *count).reduce(u64::saturating_add),
        }
    }

    /// Returns the version under which it writes. The last Status names it, unless an object was
    /// written under another id after that: an API server keeps its seed while the Encrypt for the
    /// next one fails.
    fn current(&self) -> Option<u32> {
        let (told, told_at) = self.told?;
        match self.wrote {
            Some((wrote, at)) if at > told_at => wrote,
            _ => told,
        }
    }

    /// Returns whether the last Status has an id that no node knows, or there was no Status.
    fn is_foreign(&self) -> bool {
        self.told.is_none_or(|(version, _)| version.is_none())
    }

    /// Returns the seconds since the last Status.
    fn told_s_ago(&self) -> u64 {
        self.told.map_or(u64::MAX, |(_, at)| self.now.since(at).as_secs())
    }
}

fn api_server_findings(facts: &Facts, servers: &[(&str, Server)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |name: &str, code: &str, text: String, remedy: &str, blocks| {
        let (name, code, remedy) = (name.to_owned(), code.to_owned(), remedy.to_owned());
        findings.push(Finding { name, on_node: false, code, text, remedy, blocks });
    };
    for server in &facts.api_servers {
        if let Err(problem) = &server.answer {
            find(&server.name, problem.code, problem.cause.clone(), &problem.remedy, true);
        }
    }
    let any_node = facts.nodes.iter().any(|node| node.answer.is_ok());
    for (name, server) in servers.iter().filter(|_| any_node) {
        if server.is_foreign() {
            find(
                name,
                "foreign-key-id",
                "its last Status has a key_id that none of these nodes has".to_owned(),
                "name every node with --node; if all are named, compare the endpoint in this API \
                 server's EncryptionConfiguration with the socket of its node",
                true,
            );
        } else if server.told_s_ago() > STATUS_MISSED_S {
            find(
                name,
                "status-missed",
                format!("its provider last answered Status {} s ago", server.told_s_ago()),
                "start the provider on the node of this API server; without Status it stops \
                 writing after 180 s",
                true,
            );
        }
    }
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, server) in answered(&facts.api_servers) {
        let Some(process) = server.process.as_deref() else { continue };
        if let Some(first) = seen.insert(process, name) {
            find(
                name,
                "same-api-server",
                format!("it is the same process as {first}"),
                "give the address of each API server itself, not that of a load balancer",
                true,
            );
        }
    }
    findings
}

fn node_row(asked: &Asked<Node>) -> NodeRow {
    let node = asked.answer.as_ref().ok();
    let state = match node {
        None => "no answer".to_owned(),
        Some(node) => node.fault.as_ref().map_or("healthy".to_owned(), |fault| fault.code.clone()),
    };
    NodeRow {
        name: asked.name.clone(),
        state,
        writes: node.and_then(Node::writes).map(number),
        newest: node.and_then(Node::newest).map(number),
        takes_over_in_s: node.and_then(takeover),
        key_read_s_ago: node.and_then(|node| node.key_read_s_ago),
        clock_ahead_s: node.and_then(|node| node.ahead_s),
    }
}

fn api_server_row(asked: &Asked<ApiServer>, servers: &[(&str, Server)]) -> ApiServerRow {
    let known = asked.answer.is_ok();
    let server = servers.iter().find(|(name, _)| known && *name == asked.name).map(|(_, of)| of);
    ApiServerRow {
        name: asked.name.clone(),
        answered: known,
        wrote: server.and_then(|of| of.wrote).and_then(|(version, _)| version),
        told: server.and_then(|of| of.told).and_then(|(version, _)| version),
        told_s_ago: server.filter(|of| of.told.is_some()).map(Server::told_s_ago),
        seeds: server.and_then(|of| of.seeds),
    }
}
