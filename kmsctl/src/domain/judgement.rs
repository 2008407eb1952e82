//! Judges which key versions may be retired, from what was read: a live cluster, backups, and the
//! state of the providers. It promises only what follows from these facts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use vault_kube_kms::domain::key::KekVersion;

use super::{
    finding::objects as objects_of,
    needs::Needs,
    node::{Node, Role, SETTLED},
};

/// The name of the key for nodes whose version no stored object has, so that the kind of keeper is
/// not known.
const NOT_KNOWN: &str = "";

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What the objects of the live cluster need. `None` when only backups were read.
    pub live: Option<Needs>,
    /// What the objects of each backup need, by its name.
    pub backups: Vec<(String, Needs)>,
    /// The names of the nodes and the states of their providers, read before the live cluster was.
    pub nodes: Vec<(String, Node)>,
    /// The number of API servers that hold a lease in the live etcd ([`super::tally::Tally::api_servers`]). 0 when that is not known.
    pub api_servers: u64,
    /// What was not read of the live cluster, such as resources that were left out.
    pub unread: Vec<Reason>,
}

/// A reason, with a stable code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The stable code.
    pub code: &'static str,
    /// The fact, for people.
    pub text: String,
}

impl Reason {
    /// Makes a reason.
    #[must_use]
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// The answer to "how high may `min_decryption_version` be?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This version is safe, and no higher one is.
    Safe(KekVersion),
    /// No version above this one is safe. Whether this one is, depends on facts that are missing.
    AtMost(KekVersion),
    /// It cannot be said.
    Unknown,
}

/// Who uses one version of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// The number of live objects that need it.
    pub objects: u64,
    /// The numbers of objects of the backups that need it.
    pub backups: BTreeMap<String, u64>,
    /// The nodes that write with it.
    pub written_by: Vec<String>,
    /// The nodes where it will write.
    pub waits_on: Vec<String>,
    /// The nodes whose keeper no longer unwraps with it.
    pub archived_on: Vec<String>,
    /// The key ids of objects and nodes that name this version.
    pub key_ids: BTreeSet<String>,
}

impl Use {
    /// Returns whether a stored object needs it, or a node writes or will write with it.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.objects > 0
            || !self.backups.is_empty()
            || !self.written_by.is_empty()
            || !self.waits_on.is_empty()
    }
}

/// The judgement of one key: the versions that wrapped seeds of one keeper name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyJudgement {
    /// The word of the keeper in the wrapped seeds, such as `vault`. Empty when no object has one.
    pub keeper: String,
    /// The highest safe `min_decryption_version`.
    pub verdict: Verdict,
    /// Who needs the version of the verdict.
    pub because: Vec<String>,
    /// The verdict if no backup had to be restored, when that is a higher version.
    pub without_backups: Option<KekVersion>,
    /// Who uses which version.
    pub versions: BTreeMap<KekVersion, Use>,
}

impl KeyJudgement {
    /// Returns the versions that nothing that was read needs, and that are not archived yet.
    pub fn unneeded(&self) -> impl Iterator<Item = KekVersion> {
        let unneeded = |usage: &Use| !usage.is_needed() && usage.archived_on.is_empty();
        self.versions.iter().filter(move |(_, usage)| unneeded(usage)).map(|(version, _)| *version)
    }
}

/// The judgement of all keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// By keeper.
    pub keys: Vec<KeyJudgement>,
    /// Why no version can be given: objects whose version is not known.
    pub obstacles: Vec<Reason>,
    /// The facts that are missing for a promise.
    pub missing: Vec<Reason>,
    /// What else the operator should know.
    pub notes: Vec<Reason>,
    /// What is wrong now: stored objects that cannot be read.
    pub broken: Vec<Reason>,
}

impl Judgement {
    /// Judges `facts`.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let mut judgement =
            Self { obstacles: obstacles(facts), missing: missing(facts), ..Self::default() };
        for keeper in keepers(facts) {
            let key = judge(facts, &keeper, &judgement);
            judgement.notes.extend(two_keys(&key));
            judgement.broken.extend(archived(&key));
            judgement.keys.push(key);
        }
        judgement.notes.extend(nodes_that_differ(facts));
        judgement.notes.extend(takeovers(facts));
        judgement
    }

    /// Returns whether `min_decryption_version` may be `version` for the key of Vault or OpenBao.
    #[must_use]
    pub fn is_safe(&self, version: KekVersion) -> bool {
        let mut keys = self.keys.iter().filter(|key| is_transit(&key.keeper)).peekable();
        keys.peek().is_some()
            && keys.all(|key| matches!(key.verdict, Verdict::Safe(safe) if version <= safe))
    }
}

/// Returns whether a key may be one of Transit, which has a `min_decryption_version`.
#[must_use]
pub fn is_transit(keeper: &str) -> bool {
    keeper == "vault" || keeper == NOT_KNOWN
}

/// Returns all sources of objects with the words that name them.
fn sources(facts: &Facts) -> impl Iterator<Item = (Option<&str>, &Needs)> {
    let live = facts.live.iter().map(|needs| (None, needs));
    live.chain(facts.backups.iter().map(|(name, needs)| (Some(name.as_str()), needs)))
}

fn keepers(facts: &Facts) -> Vec<String> {
    let named = sources(facts).flat_map(|(_, needs)| needs.keepers.keys().cloned());
    let mut keepers: BTreeSet<String> = named.collect();
    if keepers.is_empty() && facts.nodes.iter().any(|(_, node)| node.writes().is_some()) {
        keepers.insert(NOT_KNOWN.to_owned());
    }
    keepers.into_iter().collect()
}

fn judge(facts: &Facts, keeper: &str, so_far: &Judgement) -> KeyJudgement {
    let versions = uses(facts, keeper);
    let lowest = |needed: &dyn Fn(&Use) -> bool| {
        versions.iter().find(|(_, usage)| needed(usage)).map(|(version, _)| *version)
    };
    let highest_safe = lowest(&Use::is_needed);
    let without_backups = lowest(&|usage: &Use| {
        usage.objects > 0 || !usage.written_by.is_empty() || !usage.waits_on.is_empty()
    });
    let verdict = match highest_safe {
        Some(version) if so_far.obstacles.is_empty() && so_far.missing.is_empty() => {
            Verdict::Safe(version)
        }
        Some(version) if so_far.obstacles.is_empty() => Verdict::AtMost(version),
        _ => Verdict::Unknown,
    };
    let because = match (&verdict, highest_safe) {
        (Verdict::Unknown, _) | (_, None) => Vec::new(),
        (_, Some(version)) => because(facts, keeper, version, &versions),
    };
    KeyJudgement {
        keeper: keeper.to_owned(),
        because,
        without_backups: without_backups
            .filter(|without| verdict != Verdict::Unknown && Some(*without) > highest_safe),
        verdict,
        versions,
    }
}

fn uses(facts: &Facts, keeper: &str) -> BTreeMap<KekVersion, Use> {
    let mut versions: BTreeMap<KekVersion, Use> = BTreeMap::new();
    for (backup, needs) in sources(facts) {
        for (version, need) in needs.keepers.get(keeper).into_iter().flatten() {
            let usage = versions.entry(*version).or_default();
            match backup {
                None => usage.objects = need.objects,
                Some(name) => drop(usage.backups.insert(name.to_owned(), need.objects)),
            }
            usage.key_ids.extend(need.key_ids.keys().cloned());
        }
    }
    for (name, node) in facts.nodes.iter().filter(|(_, node)| may_use(facts, node, keeper)) {
        for known in &node.versions {
            let usage = versions.entry(known.version).or_default();
            usage.key_ids.insert(known.key_id.clone());
            let nodes = match known.role {
                Role::Writes => &mut usage.written_by,
                Role::Waits => &mut usage.waits_on,
                Role::Archived => &mut usage.archived_on,
                Role::Reads => continue,
            };
            nodes.push(name.clone());
        }
        // A process that started later has not seen the versions that were archived before.
        let Some(lowest) = node.lowest_usable() else { continue };
        for (_, usage) in versions.range_mut(..lowest) {
            if !usage.archived_on.contains(name) {
                usage.archived_on.push(name.clone());
            }
        }
    }
    versions
}

/// Returns whether a node may use the key of `keeper`: unless its key ids are those of objects of
/// other keepers alone.
fn may_use(facts: &Facts, node: &Node, keeper: &str) -> bool {
    let mut is_of_another = false;
    for (_, needs) in sources(facts) {
        for (word, versions) in &needs.keepers {
            let ids = versions.values().flat_map(|need| need.key_ids.keys());
            let is_known = |id: &String| node.versions.iter().any(|known| known.key_id == *id);
            if ids.into_iter().any(is_known) {
                if word == keeper {
                    return true;
                }
                is_of_another = true;
            }
        }
    }
    !is_of_another
}

fn because(
    facts: &Facts,
    keeper: &str,
    version: KekVersion,
    versions: &BTreeMap<KekVersion, Use>,
) -> Vec<String> {
    let Some(usage) = versions.get(&version) else { return Vec::new() };
    let mut because = Vec::new();
    if usage.objects > 0 {
        let known = facts.live.as_ref().and_then(|needs| needs.keepers.get(keeper)?.get(&version));
        let oldest = known.map(|need| format!(", such as {}", need.oldest.1)).unwrap_or_default();
        because.push(format!("{} it{oldest}", need(usage.objects, "stored object")));
    }
    for (backup, objects) in &usage.backups {
        because.push(format!("{} it in the backup {backup}", need(*objects, "object")));
    }
    because.extend(usage.written_by.iter().map(|node| format!("{node} writes with it")));
    because.extend(usage.waits_on.iter().map(|node| format!("{node} will write with it")));
    because
}

/// Returns the subject of a sentence about what objects need, with its verb.
fn need(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what} needs") } else { format!("{number} {what}s need") }
}

fn obstacles(facts: &Facts) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (backup, needs) in sources(facts) {
        let place = backup.map_or_else(String::new, |name| format!(" of the backup {name}"));
        reasons.extend(needs.doubts.iter().map(|doubt| {
            let text = format!(
                "objects{place} {}, so that it is not known which version they need: {}, such as {}",
                doubt.why, doubt.objects, doubt.example
            );
            Reason::new("version-not-known", text)
        }));
    }
    reasons
}

fn missing(facts: &Facts) -> Vec<Reason> {
    let mut reasons = facts.unread.clone();
    if facts.live.is_none() {
        reasons.push(Reason::new(
            "live-not-read",
            "the live etcd was not read, so newer objects are not seen",
        ));
    }
    for (plugin, objects) in facts.live.iter().flat_map(|needs| &needs.others) {
        reasons.push(Reason::new(
            "other-plugin-writes",
            format!(
                "{} of the plugin {plugin:?} name versions too, and which version that plugin \
                 writes is not known; end the move from it",
                objects_of(*objects)
            ),
        ));
    }
    if facts.nodes.is_empty() {
        reasons.push(Reason::new(
            "no-node",
            "no node was asked which version it writes; give the /statusz of each with --node",
        ));
    }
    let given = u64::try_from(facts.nodes.len()).unwrap_or(u64::MAX);
    if given > 0 && facts.api_servers > given {
        reasons.push(Reason::new(
            "nodes-left-out",
            format!(
                "etcd has leases of {} API servers, and --node names {given}; give all nodes",
                facts.api_servers
            ),
        ));
    }
    for (name, node) in &facts.nodes {
        match (node.writes(), node.writing_s.map(Duration::from_secs)) {
            (None, _) => reasons.push(Reason::new(
                "node-writes-nothing",
                format!(
                    "{name} writes with no version now ({}), so it is not known with which one it will",
                    node.fault.as_ref().map_or("it does not say why", |fault| &fault.code),
                ),
            )),
            (Some(writer), None) => reasons.push(Reason::new(
                "node-says-no-time",
                format!(
                    "{name} does not say since when it writes version {}; upgrade its provider",
                    writer.version
                ),
            )),
            (Some(writer), Some(since)) if since < SETTLED => reasons.push(Reason::new(
                "node-changed",
                format!(
                    "{name} has written version {} for only {} s, and API servers may still use a seed \
                     of the version before; run the command again in {} min",
                    writer.version,
                    since.as_secs(),
                    (SETTLED.saturating_sub(since)).as_secs().div_ceil(60),
                ),
            )),
            _ => (),
        }
    }
    reasons
}

/// Returns a note for each version that two key ids name.
fn two_keys(key: &KeyJudgement) -> Vec<Reason> {
    let ours = |usage: &Use, version: KekVersion| {
        let mut ids: Vec<String> = usage.key_ids.iter().cloned().collect();
        ids.retain(|id| {
            vault_kube_kms::domain::key_id::KeyId::version_claimed(id) == Some(version)
        });
        ids
    };
    let mut notes = Vec::new();
    for (version, usage) in &key.versions {
        let ids = ours(usage, *version);
        if ids.len() > 1 {
            notes.push(Reason::new(
                "two-keys",
                format!(
                    "the key ids {} all name version {version}: they are versions of different \
                     keys, or one key under two lineages or generations. The verdict is for all of \
                     them together",
                    ids.join(" and ")
                ),
            ));
        }
    }
    notes
}

/// Returns what is wrong when stored objects need a version that the keeper no longer unwraps.
fn archived(key: &KeyJudgement) -> Vec<Reason> {
    let is_lost = |usage: &Use| usage.objects > 0 && !usage.archived_on.is_empty();
    let lost = key.versions.iter().filter(|(_, usage)| is_lost(usage));
    let reason = |(version, usage): (&KekVersion, &Use)| {
        Reason::new(
            "version-archived",
            format!(
                "{} version {version}, which {} cannot unwrap; lower min_decryption_version to \
                 {version}",
                need(usage.objects, "stored object"),
                usage.archived_on.join(" and "),
            ),
        )
    };
    lost.map(reason).collect()
}

fn nodes_that_differ(facts: &Facts) -> Vec<Reason> {
    let writers =
        facts.nodes.iter().filter_map(|(name, node)| Some((node.writes()?.version, name)));
    let newest = writers.clone().map(|(version, _)| version).max();
    let behind = writers.filter(|(version, _)| Some(*version) < newest);
    behind
        .map(|(version, name)| {
            let text =
                format!("{name} still writes version {version}, and other nodes a newer one");
            Reason::new("node-behind", text)
        })
        .collect()
}

fn takeovers(facts: &Facts) -> Vec<Reason> {
    let waiting = facts.nodes.iter().filter_map(|(name, node)| Some((name, node.next()?)));
    waiting
        .map(|(name, (version, wait))| {
            let text = format!(
                "{name} writes version {version} in {} s; objects need the version before until \
                 they are written again",
                wait.as_secs()
            );
            Reason::new("next-version", text)
        })
        .collect()
}

#[cfg(test)]
#[path = "judgement_tests.rs"]
mod tests;
