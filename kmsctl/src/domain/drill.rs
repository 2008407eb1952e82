//! The drill: which objects of a backup a keeper can read, and why it cannot read the others.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_lc_rs::digest::{Context, SHA256};
use vault_kube_kms::domain::{
    envelope::FORMAT_ANNOTATION,
    error::{Code, KmsError},
    secret::Plaintext,
};

use super::{
    drill_report::{Failure, Group, KeyVersions, Totals},
    envelope::{Envelope, SeedUse},
    keeper_facts::KeeperFacts,
    object::Object,
    opening::{Unopened, open},
    place::Place,
    problem::Problem,
    stored::Stored,
};

/// The largest number of distinct seeds. A cluster has some dozens; each restart of an API server
/// adds one.
const SEEDS_MAX: usize = 100_000;

/// The largest number of groups of a report.
const GROUPS_MAX: usize = 10_000;

/// The state of an object that is not encrypted.
const CLEAR: &str = "clear";

/// The longest key that a report shows, in characters. etcd allows keys of 1.5 MB.
const KEY_SHOWN: usize = 2_048;

/// The number of failures that a report lists.
pub const FAILURES_MAX: usize = 100;

/// Which objects are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// All.
    All,
    /// At most this many of each resource under each seed, the newest first.
    Newest(u64),
}

/// Which objects the keeper of the drill may have encrypted.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Those of vault-kube-kms, and with `legacy` those of other plugins on a Transit key.
    Ours {
        /// The setting `--legacy-decrypt` of the keeper.
        legacy: bool,
    },
    /// Those of a plugin with this name in the `EncryptionConfiguration`, or all of KMS v2.
    Plugin(Option<String>),
}

impl Scope {
    /// Returns whether the drill tests an object.
    #[must_use]
    pub fn includes(&self, envelope: &Envelope<'_>) -> bool {
        match self {
            Self::Ours { legacy } => {
                envelope.annotations.contains_key(FORMAT_ANNOTATION)
                    || (*legacy && envelope.version_claimed().is_some())
            }
            Self::Plugin(name) => name.as_ref().is_none_or(|name| name == envelope.provider),
        }
    }
}

/// Why an object cannot be read. The text form is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The keeper does not have the key version, or does not unwrap with it.
    VersionMissing,
    /// The key id names a version of another key.
    OtherKey,
    /// The keeper does not have the key at all.
    KeyMissing,
    /// The keeper or the plugin refuses the wrapped seed.
    SeedRefused,
    /// The object does not belong to its key in etcd: it was moved or changed.
    Binding,
    /// The stored value is not in a form that an API server writes.
    Damaged,
}

impl Reason {
    /// Returns the stable text form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VersionMissing => "version-missing",
            Self::OtherKey => "other-key",
            Self::KeyMissing => "key-missing",
            Self::SeedRefused => "seed-refused",
            Self::Binding => "binding",
            Self::Damaged => "damaged",
        }
    }
}

/// Identifies a wrapped seed: the SHA-256 of all that is sent to unwrap it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeedId([u8; 32]);

impl SeedId {
    /// Returns the identity of the seed of `envelope`.
    #[must_use]
    pub fn of(envelope: &Envelope<'_>) -> Self {
        let mut context = Context::new(&SHA256);
        let mut add = |bytes: &[u8]| {
            context.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(bytes);
        };
        add(envelope.provider.as_bytes());
        add(envelope.key_id.as_bytes());
        add(&envelope.wrapped_seed);
        add(&[u8::from(envelope.seed_use == SeedUse::DerivedKey)]);
        for (name, value) in &envelope.annotations {
            add(name.as_bytes());
            add(value);
        }
        Self(context.finish().as_ref().first_chunk().copied().unwrap_or_default())
    }
}

#[derive(Debug)]
enum Unwrapped {
    Seed(Plaintext),
    Failed(Reason, String),
}

#[derive(Debug)]
struct KnownSeed {
    unwrapped: Unwrapped,
    /// How many objects of each resource were opened.
    opened: BTreeMap<String, u64>,
}

/// A drill that runs: what was found so far.
#[derive(Debug)]
pub struct Drill {
    scope: Scope,
    sample: Sample,
    keeper: KeeperFacts,
    seeds: HashMap<SeedId, KnownSeed>,
    groups: BTreeMap<(String, String), Group>,
    totals: Totals,
    failures: Vec<Failure>,
    needed: BTreeSet<u32>,
    missing: BTreeSet<u32>,
}

impl Drill {
    /// Starts a drill.
    #[must_use]
    pub fn new(scope: Scope, sample: Sample, keeper: KeeperFacts) -> Self {
        Self {
            scope,
            sample,
            keeper,
            seeds: HashMap::new(),
            groups: BTreeMap::new(),
            totals: Totals::default(),
            failures: Vec::new(),
            needed: BTreeSet::new(),
            missing: BTreeSet::new(),
        }
    }

    /// Returns the seeds of these objects that must be unwrapped first, each once.
    #[must_use]
    pub fn new_seeds<'a, 'b>(&self, page: &'a [Stored<'b>]) -> Vec<(SeedId, &'a Envelope<'b>)> {
        let mut new = HashMap::new();
        for stored in page {
            if let Stored::KmsV2(envelope) = stored
                && self.scope.includes(envelope)
            {
                let id = SeedId::of(envelope);
                if !self.seeds.contains_key(&id) {
                    new.insert(id, envelope);
                }
            }
        }
        new.into_iter().collect()
    }

    /// Records the answer of the keeper for a seed.
    ///
    /// # Errors
    /// When the answer is no verdict on the seed, such as an outage or a refused login. When there
    /// are too many seeds.
    pub fn learn(
        &mut self,
        id: SeedId,
        envelope: &Envelope<'_>,
        answer: Result<Plaintext, KmsError>,
    ) -> Result<(), Problem> {
        let unwrapped = match answer {
            Ok(seed) => Unwrapped::Seed(seed),
            Err(error) => match self.reason(envelope, &error) {
                Some(reason) => Unwrapped::Failed(reason, self.cause(reason, envelope, &error)),
                None => return Err(no_answer(&error)),
            },
        };
        if let Some(version) = envelope.version_claimed() {
            self.needed.insert(version.get());
            if matches!(unwrapped, Unwrapped::Failed(Reason::VersionMissing, _)) {
                self.missing.insert(version.get());
            }
        }
        self.totals.seeds = self.totals.seeds.saturating_add(1);
        if matches!(unwrapped, Unwrapped::Seed(_)) {
            self.totals.seeds_unwrapped = self.totals.seeds_unwrapped.saturating_add(1);
        }
        self.seeds.insert(id, KnownSeed { unwrapped, opened: BTreeMap::new() });
        if self.seeds.len() > SEEDS_MAX {
            return Err(Problem::new(
                "snapshot-too-large",
                format!("the snapshot has more than {SEEDS_MAX} distinct seeds"),
                "test one resource after the other: --resource=secrets",
            ));
        }
        Ok(())
    }

    /// Returns why the keeper does not unwrap the seed. `None` when the error is not about the seed.
    fn reason(&self, envelope: &Envelope<'_>, error: &KmsError) -> Option<Reason> {
        let is_newer = self.keeper.latest.is_some_and(|latest| {
            envelope.version_claimed().is_some_and(|version| version.get() > latest)
        });
        match error.code() {
            Code::VersionRetired => Some(Reason::VersionMissing),
            Code::KeyIdUnknown | Code::CiphertextRejected if is_newer => {
                Some(Reason::VersionMissing)
            }
            Code::KeyIdUnknown => Some(Reason::OtherKey),
            Code::KeyMissing => Some(Reason::KeyMissing),
            Code::CiphertextRejected | Code::InvalidRequest => Some(Reason::SeedRefused),
            _ => None,
        }
    }

    fn cause(&self, reason: Reason, envelope: &Envelope<'_>, error: &KmsError) -> String {
        match (reason, envelope.version_claimed(), self.keeper.range()) {
            (Reason::VersionMissing, Some(version), Some(range)) => format!(
                "it needs version {version} of the key, and the keeper unwraps with {range}"
            ),
            _ => error.cause().to_owned(),
        }
    }

    /// Counts an object below `root`, the API server's `--etcd-prefix`, and opens it when it belongs
    /// to the sample. Its seed must be known. Returns why the object cannot be read, if it cannot.
    ///
    /// # Errors
    /// When there are too many groups.
    pub fn add(
        &mut self,
        root: &str,
        object: &Object,
        stored: &Stored<'_>,
    ) -> Result<Option<Reason>, Problem> {
        self.totals.objects = self.totals.objects.saturating_add(1);
        let place = Place::of(&object.key, root);
        let resource = place.map_or("(elsewhere)", |place| place.resource).to_owned();
        let (state, failure, opened) = match stored {
            Stored::KmsV2(envelope) if self.scope.includes(envelope) => {
                self.totals.tested = self.totals.tested.saturating_add(1);
                let (failure, opened) = self.test(envelope, &object.key, &resource);
                (format!("kms/v2/{} {}", envelope.provider, envelope.key_id), failure, opened)
            }
            Stored::KmsV2(envelope) => {
                self.totals.other = self.totals.other.saturating_add(1);
                (format!("kms/v2/{} (not tested)", envelope.provider), None, false)
            }
            Stored::Other(provider) => {
                self.totals.other = self.totals.other.saturating_add(1);
                (format!("{provider} (not tested)"), None, false)
            }
            Stored::Clear => {
                self.totals.clear = self.totals.clear.saturating_add(1);
                (CLEAR.to_owned(), None, false)
            }
            Stored::Unreadable(why) => {
                ("unreadable".to_owned(), Some((Reason::Damaged, why.clone())), false)
            }
        };
        let group = self.groups.entry((resource.clone(), state.clone())).or_insert_with(|| Group {
            resource,
            state,
            objects: 0,
            opened: 0,
            unreadable: 0,
        });
        group.objects = group.objects.saturating_add(1);
        group.opened = group.opened.saturating_add(u64::from(opened));
        self.totals.opened = self.totals.opened.saturating_add(u64::from(opened));
        let unread = failure.as_ref().map(|(reason, _)| *reason);
        if let Some((reason, cause)) = failure {
            group.unreadable = group.unreadable.saturating_add(1);
            self.totals.unreadable = self.totals.unreadable.saturating_add(1);
            if self.failures.len() < FAILURES_MAX {
                let shown = object.key.escape_ascii().take(KEY_SHOWN);
                let object = shown.map(char::from).collect();
                self.failures.push(Failure { object, reason: reason.as_str(), cause });
            }
        }
        if self.groups.len() > GROUPS_MAX {
            return Err(Problem::new(
                "snapshot-too-large",
                format!("the snapshot has more than {GROUPS_MAX} resources and key ids"),
                "test one resource after the other: --resource=secrets",
            ));
        }
        Ok(unread)
    }

    /// Returns why the object cannot be read, and whether it was opened.
    fn test(
        &mut self,
        envelope: &Envelope<'_>,
        key: &[u8],
        resource: &str,
    ) -> (Option<(Reason, String)>, bool) {
        let Some(known) = self.seeds.get_mut(&SeedId::of(envelope)) else {
            return (Some((Reason::SeedRefused, "its seed was not asked for".to_owned())), false);
        };
        let seed = match &known.unwrapped {
            Unwrapped::Seed(seed) => seed,
            Unwrapped::Failed(reason, cause) => return (Some((*reason, cause.clone())), false),
        };
        let opened = known.opened.entry(resource.to_owned()).or_default();
        if let Sample::Newest(most) = self.sample
            && *opened >= most
        {
            return (None, false);
        }
        *opened = opened.saturating_add(1);
        let (reason, cause) = match open(seed.expose(), envelope, key) {
            Ok(()) => return (None, true),
            Err(Unopened::Length) => (Reason::Damaged, "the object or its seed is too short"),
            Err(Unopened::Binding) => (
                Reason::Binding,
                "the keeper unwraps its seed, but the object does not fit its key in etcd: it was moved or changed",
            ),
            Err(Unopened::Form) => {
                (Reason::Damaged, "the opened object is neither protobuf of Kubernetes nor JSON")
            }
        };
        (Some((reason, cause.to_owned())), true)
    }

    /// Ends the drill.
    ///
    /// # Errors
    /// `nothing-to-test` when no object was tested and none is damaged.
    pub fn end(self) -> Result<Results, Problem> {
        if self.totals.tested == 0 && self.totals.unreadable == 0 {
            return Err(Problem::new(
                "nothing-to-test",
                format!("none of the {} objects was encrypted by this keeper", self.totals.objects),
                "check --etcd-prefix, --resource and --provider, and that the snapshot is of this cluster",
            ));
        }
        Ok(self.so_far())
    }

    /// Returns what was found until the snapshot turned out to be damaged.
    #[must_use]
    pub fn so_far(self) -> Results {
        let mut groups: Vec<_> = self.groups.into_values().collect();
        // What is encrypted comes first.
        groups.sort_by_key(|group| group.state == CLEAR);
        Results {
            totals: self.totals,
            groups,
            versions: KeyVersions {
                needed: self.needed.into_iter().collect(),
                missing: self.missing.into_iter().collect(),
            },
            failures: self.failures,
            keeper: self.keeper,
        }
    }
}

/// What a drill found.
#[derive(Debug)]
pub struct Results {
    /// The sums.
    pub totals: Totals,
    /// The objects by resource and state.
    pub groups: Vec<Group>,
    /// The versions of the key.
    pub versions: KeyVersions,
    /// The first failures.
    pub failures: Vec<Failure>,
    /// The keeper.
    pub keeper: KeeperFacts,
}

/// Returns the error of a keeper that gave no verdict.
#[must_use]
pub fn no_answer(error: &KmsError) -> Problem {
    Problem::new(
        error.code().as_str(),
        format!("the keeper gave no answer, so this drill has no result: {}", error.cause()),
        error.remedy(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "/registry/secrets/default/db";

    fn drill() -> Drill {
        let keeper =
            KeeperFacts { latest: Some(3), min_decryption: Some(2), ..KeeperFacts::default() };
        Drill::new(Scope::Ours { legacy: true }, Sample::Newest(1), keeper)
    }

    fn object(version: u32) -> Object {
        let mut value = b"k8s:enc:kms:v2:vault:".to_vec();
        value.extend(crate::domain::envelope::tests::of_version(version));
        Object { key: KEY.into(), value: value.into(), mod_revision: 1 }
    }

    /// Tests one object whose seed the keeper answers in this way.
    fn tested(version: u32, code: Code) -> Result<Results, Problem> {
        let (mut drill, object) = (drill(), object(version));
        let page = [Stored::of(&object.value)];
        for (id, envelope) in drill.new_seeds(&page) {
            drill.learn(id, envelope, Err(KmsError::new(code, "the cause", "the remedy")))?;
        }
        drill.add("/registry", &object, &page[0])?;
        drill.end()
    }

    #[test]
    fn says_why_a_seed_is_not_unwrapped() {
        for (version, code, reason, missing) in [
            (1, Code::VersionRetired, "version-missing", vec![1]),
            (4, Code::KeyIdUnknown, "version-missing", vec![4]),
            (3, Code::KeyIdUnknown, "other-key", vec![]),
            (3, Code::CiphertextRejected, "seed-refused", vec![]),
            (3, Code::KeyMissing, "key-missing", vec![]),
        ] {
            let results = tested(version, code).unwrap();
            assert_eq!(results.failures[0].reason, reason);
            assert_eq!(results.failures[0].object, KEY);
            assert_eq!(results.versions.missing, missing);
            assert_eq!((results.totals.unreadable, results.totals.opened), (1, 0));
        }
    }

    #[test]
    fn a_keeper_that_gives_no_verdict_makes_nothing_unreadable() {
        let verdicts = [
            Code::CiphertextRejected,
            Code::InvalidRequest,
            Code::KeyIdUnknown,
            Code::KeyMissing,
            Code::VersionRetired,
        ];
        for code in Code::ALL.into_iter().filter(|code| !verdicts.contains(code)) {
            assert_eq!(tested(3, code).unwrap_err().code, code.as_str());
        }
    }

    #[test]
    fn one_seed_is_asked_for_once() {
        let (mut drill, object) = (drill(), object(3));
        let page = [Stored::of(&object.value), Stored::of(&object.value)];
        let new = drill.new_seeds(&page);
        assert_eq!(new.len(), 1);
        for (id, envelope) in new {
            drill.learn(id, envelope, Ok(Plaintext::new(vec![0; 32]))).unwrap();
        }
        assert!(drill.new_seeds(&page).is_empty());
    }

    #[test]
    fn a_long_key_is_cut_in_the_report() {
        let (mut drill, mut object) = (drill(), object(3));
        object.key = vec![0xff; 1 << 20].into();
        drill.add("/registry", &object, &Stored::of(b"\xff")).unwrap();
        assert!(drill.end().unwrap().failures[0].object.len() <= KEY_SHOWN);
    }

    #[test]
    fn nothing_to_test_is_no_result() {
        let (mut drill, mut object) = (drill(), object(3));
        object.value = "k8s\0".into();
        drill.add("/registry", &object, &Stored::of(&object.value)).unwrap();
        assert_eq!(drill.end().unwrap_err().code, "nothing-to-test");
    }
}
