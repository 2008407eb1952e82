//! The report of a drill: the paper for an auditor.

use serde::Serialize;

use super::keeper_facts::KeeperFacts;

/// The result of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every seed that was tested was unwrapped, and every object of the sample was opened.
    Readable,
    /// Some objects cannot be read.
    Unreadable,
    /// The snapshot file itself is damaged.
    Damaged,
}

/// Sums over all objects below the prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// All objects.
    pub objects: u64,
    /// Those that this keeper, or the plugin, must be able to read.
    pub tested: u64,
    /// Those of other providers. This drill says nothing about them.
    pub other: u64,
    /// Those that are not encrypted.
    pub clear: u64,
    /// Those that cannot be read.
    pub unreadable: u64,
    /// Those that were opened, or tried.
    pub opened: u64,
    /// The distinct wrapped seeds.
    pub seeds: u64,
    /// The seeds that the keeper unwrapped.
    pub seeds_unwrapped: u64,
}

/// The objects of one resource in one state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The resource, such as `secrets`.
    pub resource: String,
    /// The provider with the key id, or `clear`, or `unreadable`.
    pub state: String,
    /// The number of objects.
    pub objects: u64,
    /// How many were opened.
    pub opened: u64,
    /// How many cannot be read.
    pub unreadable: u64,
}

/// The versions of the key that wrapped the seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeyVersions {
    /// All that the snapshot needs, as the wrapped seeds claim them.
    pub needed: Vec<u32>,
    /// Those that the keeper does not have, or does not unwrap with.
    pub missing: Vec<u32>,
}

/// An object that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The key in etcd. Bytes that are not printable ASCII are escaped.
    pub object: String,
    /// The stable reason.
    pub reason: &'static str,
    /// The reason for people.
    pub cause: String,
}

/// The snapshot of a drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotFacts {
    /// The path, as it was given.
    pub file: String,
    /// The size of the file in bytes.
    pub size: u64,
    /// The SHA-256 of the whole file in hex.
    pub sha256: String,
    /// Whether the digest that etcdctl wrote at the end of the file `fits`, is `absent` or
    /// `differs`.
    pub digest: &'static str,
    /// The newest revision. `None` for a damaged file.
    pub revision: Option<i64>,
    /// The beginnings of the keys of the objects.
    pub prefixes: Vec<String>,
    /// Why the file is damaged.
    pub problem: Option<String>,
}

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The result.
    pub verdict: Verdict,
    /// The program and its version.
    pub program: String,
    /// When the drill began (RFC 3339, UTC).
    pub began: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The snapshot.
    pub snapshot: SnapshotFacts,
    /// The keeper.
    pub keeper: KeeperFacts,
    /// How objects were chosen for opening.
    pub sample: String,
    /// The resource whose objects were tested. `None` when all were.
    pub resource: Option<String>,
    /// The sums.
    pub totals: Totals,
    /// The versions of the key.
    pub versions: KeyVersions,
    /// The objects by resource and state.
    pub groups: Vec<Group>,
    /// The first failures.
    pub failures: Vec<Failure>,
}

impl Report {
    /// Returns the number of failures that are not listed.
    #[must_use]
    pub fn unlisted(&self) -> u64 {
        let listed = u64::try_from(self.failures.len()).unwrap_or(u64::MAX);
        self.totals.unreadable.saturating_sub(listed)
    }

    /// Returns the result in one sentence, and which objects it is about if not about all.
    #[must_use]
    pub fn sentence(&self) -> String {
        match (&self.resource, self.verdict) {
            (Some(resource), Verdict::Readable | Verdict::Unreadable) => {
                format!("{} Only objects of {resource} were tested.", self.finding())
            }
            _ => self.finding(),
        }
    }

    fn finding(&self) -> String {
        let totals = &self.totals;
        let is_of_all = self.resource.is_none() && totals.other == 0;
        match self.verdict {
            Verdict::Readable if totals.opened < totals.tested => format!(
                "No failure was found: {} of {} seeds unwrapped, and a sample of {} of {} objects opened. The others were not opened.",
                totals.seeds_unwrapped, totals.seeds, totals.opened, totals.tested
            ),
            Verdict::Readable => format!(
                "{} is readable: {} of {} seeds unwrapped, {} of {} objects opened.",
                if is_of_all { "Everything" } else { "Everything that was tested" },
                totals.seeds_unwrapped,
                totals.seeds,
                totals.opened,
                totals.tested
            ),
            Verdict::Unreadable => {
                let needs = match self.versions.missing.as_slice() {
                    [] => String::new(),
                    missing => {
                        format!(
                            " The snapshot needs version {} of the key, and this keeper does not unwrap with it.",
                            joined(missing)
                        )
                    }
                };
                format!(
                    "{} of {} objects cannot be read.{needs}",
                    totals.unreadable, totals.objects
                )
            }
            Verdict::Damaged => "The snapshot file is damaged. It cannot be restored.".to_owned(),
        }
    }

    /// Returns what the drill does not show.
    #[must_use]
    pub fn limits(&self) -> Vec<String> {
        let totals = &self.totals;
        let mut limits = Vec::new();
        if self.verdict != Verdict::Damaged {
            limits.push(format!(
                "Only keys below {} were read. Not seen: {}other prefixes, and resources in another etcd (--etcd-servers-overrides).",
                self.snapshot.prefixes.join(" and "),
                if self.resource.is_some() { "other resources, " } else { "" },
            ));
        }
        if totals.other > 0 {
            limits.push(format!(
                "{} objects are of other providers: this drill does not test them.",
                totals.other
            ));
        }
        if totals.opened < totals.tested.saturating_sub(totals.unreadable) {
            limits.push(
                "Objects outside the sample were not opened: damage to them is not seen."
                    .to_owned(),
            );
        }
        if self.snapshot.digest == "absent" {
            limits.push(
                "The file has no digest of etcdctl: nothing shows that it is whole.".to_owned(),
            );
        }
        limits
    }
}

/// Returns the numbers with commas between them.
#[must_use]
pub fn joined(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}
