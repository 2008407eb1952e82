//! Counts stored objects: by resource, by how they are encrypted, and by key.

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    fmt,
};

use aws_lc_rs::digest::{SHA256, digest};
use vault_kube_kms::domain::{key::KekVersion, key_id::KeyId};

use super::{envelope::Envelope, place::Place, problem::Problem, stored::Stored};

/// The most distinct seeds that are counted. Each one needs about 40 bytes.
const SEEDS_MAX: usize = 2_000_000;

/// The most groups of objects, over all resources. A group needs less than 3 KiB.
const GROUPS_MAX: u32 = 50_000;

/// The resource of keys that do not name an object of a resource.
pub const NO_RESOURCE: &str = "(no resource)";

/// The longest place that is kept, in bytes. etcd allows longer keys than an API server writes.
const PLACE_MAX: usize = 512;

/// Returns whether the place is that of the lease of an API server's identity
/// (`pkg/controlplane/apiserver/server.go` of Kubernetes).
fn is_identity(place: &Place<'_>) -> bool {
    place.resource == "leases"
        && place.namespace() == Some("kube-system")
        && (place.name().starts_with("apiserver-") || place.name().starts_with("kube-apiserver-"))
}

/// How an object is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Encrypted by vault-kube-kms, or a program of its library.
    Ours,
    /// Encrypted by another KMS v2 plugin.
    OtherPlugin,
    /// Encrypted by another provider of the API server, such as `aescbc`.
    OtherProvider,
    /// Not encrypted.
    Clear,
    /// Not in a form that an API server can read.
    Unreadable,
}

impl State {
    /// All states, in the order in which they are shown.
    pub const ALL: [Self; 5] =
        [Self::Ours, Self::OtherPlugin, Self::OtherProvider, Self::Clear, Self::Unreadable];

    /// Returns the stable name of the state.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OtherPlugin => "other-plugin",
            Self::OtherProvider => "other-provider",
            Self::Clear => "clear",
            Self::Unreadable => "unreadable",
        }
    }
}

/// The key version that a wrapped seed claims: `vault:v3:` of Transit, and its like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The word of the keeper, such as `vault`.
    pub keeper: String,
    /// The version.
    pub version: KekVersion,
}

/// What the objects of one group have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// How they are stored.
    pub state: State,
    /// The name of the plugin, or `aescbc/v1/key1` and the like. Empty for clear and unreadable
    /// objects.
    pub provider: String,
    /// The key id. Empty unless a KMS v2 plugin encrypted them.
    pub key_id: String,
    /// The version that the wrapped seed claims.
    pub claim: Option<Claim>,
}

impl Group {
    /// Returns the group of an object, and the reason if it is unreadable.
    #[must_use]
    pub fn of(stored: &Stored<'_>) -> (Self, Option<String>) {
        let plain = |state, provider: &str| Self {
            state,
            provider: provider.to_owned(),
            key_id: String::new(),
            claim: None,
        };
        match stored {
            Stored::KmsV2(envelope) => (Self::of_envelope(envelope), None),
            Stored::Other(provider) => (plain(State::OtherProvider, provider), None),
            Stored::Clear => (plain(State::Clear, ""), None),
            Stored::Unreadable(why) => (plain(State::Unreadable, ""), Some(why.clone())),
        }
    }

    fn of_envelope(envelope: &Envelope<'_>) -> Self {
        let keeper = envelope.wrapped_seed.split(|byte| *byte == b':').next().unwrap_or_default();
        Self {
            state: if envelope.is_ours() { State::Ours } else { State::OtherPlugin },
            provider: envelope.provider.to_owned(),
            key_id: envelope.key_id.clone(),
            claim: envelope.version_claimed().map(|version| Claim {
                keeper: String::from_utf8_lossy(keeper).into_owned(),
                version,
            }),
        }
    }

    /// Returns the version that the key id names. `None` for another plugin.
    #[must_use]
    pub fn version_of_key_id(&self) -> Option<KekVersion> {
        match self.state {
            State::Ours => KeyId::version_claimed(&self.key_id),
            _ => None,
        }
    }
}

/// The objects of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many there are.
    pub objects: u64,
    /// How many distinct wrapped seeds they have.
    pub seeds: u64,
    /// The revision of the object that was written first, and its place.
    pub oldest: (i64, String),
    /// The revision of the object that was written last.
    pub newest_revision: i64,
    /// Why the first one is unreadable.
    pub why: Option<String>,
    /// The number of the group in its tally.
    number: u32,
}

/// The first 16 bytes of the SHA-256 of a wrapped seed.
type SeedHash = [u8; 16];

/// The wrapped seeds that were seen.
#[derive(Clone, Debug, Default)]
struct Seeds {
    /// By the number of their group.
    by_group: HashSet<(u32, SeedHash)>,
    distinct: HashSet<SeedHash>,
    /// The one that came last. Objects of one seed often follow each other.
    last: Option<(u32, SeedHash)>,
}

impl Seeds {
    /// Notes the wrapped seed of an object. Returns whether it is the first one of its group.
    fn note(&mut self, group: u32, wrapped: &[u8]) -> Result<bool, Problem> {
        let mut hash = SeedHash::default();
        for (to, from) in hash.iter_mut().zip(digest(&SHA256, wrapped).as_ref()) {
            *to = *from;
        }
        if self.last == Some((group, hash)) {
            return Ok(false);
        }
        self.last = Some((group, hash));
        self.distinct.insert(hash);
        let is_new = self.by_group.insert((group, hash));
        if self.by_group.len() > SEEDS_MAX {
            return Err(too_many("different seeds", SEEDS_MAX));
        }
        Ok(is_new)
    }
}

/// The counts of all objects of a source.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    resources: BTreeMap<String, BTreeMap<Group, Count>>,
    groups: u32,
    seeds: Seeds,
    objects: u64,
    identities: u64,
}

impl Tally {
    /// Counts one object: its key below `prefix`, its form and the revision of its last write.
    ///
    /// # Errors
    /// When there are more distinct seeds or groups than memory is kept for.
    pub fn add(
        &mut self,
        key: &[u8],
        prefix: &str,
        stored: &Stored<'_>,
        mod_revision: i64,
    ) -> Result<(), Problem> {
        let place = Place::of(key, prefix);
        let resource = place.map_or(NO_RESOURCE, |place| place.resource);
        let (group, why) = Group::of(stored);
        if !self.resources.contains_key(resource) {
            self.resources.insert(resource.to_owned(), BTreeMap::new());
        }
        let Some(groups) = self.resources.get_mut(resource) else { return Ok(()) };
        let count = match groups.entry(group) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                self.groups = self.groups.saturating_add(1);
                if self.groups > GROUPS_MAX {
                    return Err(too_many("different keys and resources", GROUPS_MAX));
                }
                new.insert(Count { number: self.groups, ..Count::default() })
            }
        };
        if let Stored::KmsV2(envelope) = stored
            && self.seeds.note(count.number, &envelope.wrapped_seed)?
        {
            count.seeds = count.seeds.saturating_add(1);
        }
        if count.objects == 0 || mod_revision < count.oldest.0 {
            count.oldest = (mod_revision, shown(key, place));
        }
        count.newest_revision = count.newest_revision.max(mod_revision);
        count.objects = count.objects.saturating_add(1);
        if count.why.is_none() {
            count.why = why;
        }
        self.objects = self.objects.saturating_add(1);
        if place.is_some_and(|place| is_identity(&place)) {
            self.identities = self.identities.saturating_add(1);
        }
        Ok(())
    }

    /// Returns the resources with their groups, by name.
    pub fn resources(&self) -> impl Iterator<Item = (&str, &BTreeMap<Group, Count>)> {
        self.resources.iter().map(|(name, groups)| (name.as_str(), groups))
    }

    /// Returns all groups with their resources.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &Group, &Count)> {
        self.resources().flat_map(|(resource, groups)| {
            groups.iter().map(move |(group, count)| (resource, group, count))
        })
    }

    /// Returns the number of objects.
    #[must_use]
    pub const fn objects(&self) -> u64 {
        self.objects
    }

    /// Returns the number of distinct wrapped seeds.
    #[must_use]
    pub fn seeds(&self) -> u64 {
        u64::try_from(self.seeds.distinct.len()).unwrap_or(u64::MAX)
    }

    /// Returns the number of objects of a resource.
    #[must_use]
    pub fn of_resource(&self, resource: &str) -> u64 {
        self.resources.get(resource).into_iter().flatten().map(|(_, count)| count.objects).sum()
    }

    /// Returns the number of API servers that have a lease. Each has one under its address, which
    /// ends 15 s after it (`pkg/controlplane/reconcilers/lease.go` of Kubernetes), and one under its
    /// identity, a hash of its host name, which ends an hour after it. API servers behind one
    /// `--advertise-address` share the former, and API servers on one host the latter.
    #[must_use]
    pub fn api_servers(&self) -> u64 {
        self.of_resource("masterleases").max(self.identities)
    }

    /// Returns the number of objects in a state.
    #[must_use]
    pub fn in_state(&self, state: State) -> u64 {
        let counted = self.groups().filter(|(_, group, _)| group.state == state);
        counted.map(|(_, _, count)| count.objects).sum()
    }
}

fn too_many(what: &str, most: impl fmt::Display) -> Problem {
    Problem::new(
        "too-many",
        format!("there are more than {most} {what}, which are counted in memory"),
        "read fewer resources at a time, with --resource",
    )
}

/// Returns a place, or a key without one, as printable text of bounded length.
#[must_use]
pub fn shown(key: &[u8], place: Option<Place<'_>>) -> String {
    let text = match place {
        Some(place) => place.to_string(),
        None => String::from_utf8_lossy(key).into_owned(),
    };
    let mut shown: String = text.escape_default().take(PLACE_MAX).collect();
    if shown.len() == PLACE_MAX {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::place::DEFAULT_PREFIX;

    /// Returns a stored object of our plugin, with a wrapped seed of its own text.
    pub(crate) fn ours(key_id: &str, seed: &str) -> Stored<'static> {
        let annotations = BTreeMap::from([(
            vault_kube_kms::domain::envelope::FORMAT_ANNOTATION.to_owned(),
            b"1".to_vec(),
        )]);
        Stored::KmsV2(Envelope {
            provider: "vault",
            key_id: key_id.to_owned(),
            wrapped_seed: seed.as_bytes().to_vec(),
            annotations,
            seed_use: crate::domain::envelope::SeedUse::DerivedKey,
            encrypted: vec![1],
        })
    }

    pub(crate) fn key_id(version: u32, letter: &str) -> String {
        format!("v{version}.{}", letter.repeat(22))
    }

    fn tally(objects: &[(&str, Stored<'static>, i64)]) -> Tally {
        let mut tally = Tally::default();
        for (key, stored, revision) in objects {
            tally.add(key.as_bytes(), DEFAULT_PREFIX, stored, *revision).unwrap();
        }
        tally
    }

    #[test]
    fn counts_by_resource_and_key_and_keeps_the_oldest_place() {
        let one = key_id(1, "a");
        let tally = tally(&[
            ("/registry/secrets/default/b", ours(&one, "vault:v1:AA"), 9),
            ("/registry/secrets/default/a", ours(&one, "vault:v1:AA"), 7),
            ("/registry/secrets/default/c", ours(&one, "vault:v1:BB"), 8),
            ("/registry/configmaps/default/c", ours(&one, "vault:v1:BB"), 8),
            ("/registry/pods/default/c", Stored::Clear, 3),
            ("/registry/x", Stored::Unreadable("damaged".into()), 4),
        ]);
        assert_eq!((tally.objects(), tally.seeds()), (6, 2));
        let (_, group, count) = tally.groups().find(|(r, ..)| *r == "secrets").unwrap();
        assert_eq!(
            group.claim.as_ref().map(|c| (c.keeper.as_str(), c.version.get())),
            Some(("vault", 1))
        );
        assert_eq!((count.objects, count.seeds), (3, 2));
        assert_eq!(count.oldest, (7, "secrets/default/a".to_owned()));
        assert_eq!(count.newest_revision, 9);
        let (resource, _, count) =
            tally.groups().find(|(_, g, _)| g.state == State::Unreadable).unwrap();
        assert_eq!((resource, count.why.as_deref()), (NO_RESOURCE, Some("damaged")));
        assert_eq!(tally.in_state(State::Ours), 4);
        assert_eq!((tally.of_resource("secrets"), tally.of_resource("masterleases")), (3, 0));
    }

    #[test]
    fn shows_a_hostile_key_as_printable_text() {
        let shown = shown(
            &[b"/registry/secrets/default/\x1b[31m".as_slice(), &[b'x'; 9_999]].concat(),
            None,
        );
        assert!(shown.len() < 520 && !shown.contains('\x1b'), "{shown}");
    }

    #[test]
    fn counts_api_servers_by_address_and_by_identity() {
        let mut tally = Tally::default();
        for (key, servers) in [
            ("/registry/masterleases/10.0.0.1", 1),
            ("/registry/leases/kube-system/apiserver-aa", 1),
            // Behind one address.
            ("/registry/leases/kube-system/apiserver-bb", 2),
            ("/registry/leases/kube-system/kube-scheduler", 2),
            ("/registry/leases/other/apiserver-cc", 2),
        ] {
            tally.add(key.as_bytes(), DEFAULT_PREFIX, &Stored::Clear, 1).unwrap();
            assert_eq!(tally.api_servers(), servers, "{key}");
        }
    }

    #[test]
    fn stops_at_the_limit_of_groups() {
        let mut tally = Tally { groups: GROUPS_MAX, ..Tally::default() };
        let problem = tally.add(b"/registry/a/b", DEFAULT_PREFIX, &Stored::Clear, 1).unwrap_err();
        assert_eq!(problem.code, "too-many");
    }
}
