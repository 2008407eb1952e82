//! The key ring: which version writes, which ones read, when the next one takes over, and when
//! the keeper's answers no longer belong to the key that was known.

use std::{collections::BTreeMap, time::Duration};

use super::{
    corrected_clock::CorrectedClock,
    error::{Code, KmsError},
    key::{KekSnapshot, KekVersion, VersionIdentity},
    key_id::{KeyId, KeyIdentity},
    time::{Monotonic, UnixTime},
};

/// How far ahead a creation time may be before it counts from when it was first seen.
const FUTURE_TOLERANCE: Duration = Duration::from_secs(5);

/// How long a lower latest version must persist before it is a rollback and no lagging replica.
const ROLLBACK_AFTER: Duration = Duration::from_mins(1);

/// The version that writes, under the name that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The key version that wraps.
    pub version: KekVersion,
    /// Its public name.
    pub key_id: KeyId,
}

/// A version that was ever seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionView {
    /// Its number.
    pub version: KekVersion,
    /// Its public name.
    pub key_id: KeyId,
    /// When the keeper made it, where the keeper knows.
    pub created: Option<UnixTime>,
    /// From when on it is old enough to write; `None` for a version that was there at the first look
    /// and whose age is not known.
    pub writes_from: Option<UnixTime>,
    /// Whether the keeper still unwraps with it.
    pub unwraps: bool,
}

/// What a key id means to this ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The id of a version that can unwrap.
    Known(KekVersion),
    /// An id of ours by its form, of a version above the newest known: a peer may know it.
    Newer(KekVersion),
    /// The id of a version that, when last seen, the keeper did not unwrap with. It may again.
    Archived(KekVersion),
    /// By its form the id of a version below those that the keeper shows; never seen here.
    Retired(KekVersion),
    /// No id of ours.
    Unknown,
}

/// What an observation changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingChange {
    /// A version was seen for the first time.
    Appeared(KekVersion),
    /// A known version can no longer unwrap.
    Retired(KekVersion),
    /// The keeper answered with an older state; nothing follows from it yet.
    Lagging {
        /// The latest version of that answer.
        answered: KekVersion,
        /// The latest version that was known.
        known: KekVersion,
    },
    /// The keeper's key is not the one that was known.
    IncidentRaised(KmsError),
    /// The keeper answers with the known key again.
    IncidentCleared,
}

/// What never changes of a version.
#[derive(Clone, Debug)]
struct Born {
    identity: VersionIdentity,
    /// Derived once: Status asks for it again and again.
    key_id: KeyId,
}

/// All that is known of one KEK; a pure state machine fed with snapshots and times.
#[derive(Clone, Debug)]
pub struct KeyRing {
    identity: KeyIdentity,
    delay: Duration,
    accepted: BTreeMap<String, KekVersion>,
    clock: CorrectedClock,
    current: Option<KekSnapshot>,
    /// Every version ever seen, whether it still unwraps or not.
    born: BTreeMap<KekVersion, Born>,
    /// When a version was first seen whose own time does not count: it is in the future, or not known.
    counted_from: BTreeMap<KekVersion, UnixTime>,
    behind_since: Option<Monotonic>,
    incident: Option<KmsError>,
    /// The newest version that was old enough to write here: a clock that is corrected backwards
    /// does not take the pen from it.
    settled: Option<KekVersion>,
}

impl KeyRing {
    /// An empty ring. `delay` is the age at which a new version begins to write; `accepted` maps
    /// ids from before a re-import to the versions that read them now.
    #[must_use]
    pub const fn new(
        identity: KeyIdentity,
        delay: Duration,
        accepted: BTreeMap<String, KekVersion>,
    ) -> Self {
        Self {
            identity,
            delay,
            accepted,
            clock: CorrectedClock::UNSET,
            current: None,
            born: BTreeMap::new(),
            counted_from: BTreeMap::new(),
            behind_since: None,
            incident: None,
            settled: None,
        }
    }

    /// Takes in one answer of the keeper, received at `now` when the local clock read `wall`.
    pub fn observe(
        &mut self,
        snapshot: KekSnapshot,
        now: Monotonic,
        wall: UnixTime,
    ) -> Vec<RingChange> {
        self.settled = self.settled.max(self.aged_writer(now));
        self.clock = CorrectedClock::set(wall, snapshot.keeper_time, now);
        if let Some(incident) = self.replaced(&snapshot) {
            return self.raise(incident);
        }
        let known = self.born.last_key_value().map(|(version, _)| *version);
        if let Some(known) = known.filter(|known| snapshot.latest < *known) {
            return self.fell_behind(snapshot.latest, known, now);
        }
        self.behind_since = None;
        let mut changes = Vec::new();
        if self.incident.take().is_some() {
            changes.push(RingChange::IncidentCleared);
        }
        self.accept(snapshot, now, &mut changes);
        changes
    }

    /// The version that writes at `now`.
    ///
    /// It is the highest one at or above the keeper's minimum versions whose age is at least the
    /// rotation delay; if none is that old, the lowest such version, at once.
    ///
    /// # Errors
    /// [`Code::Starting`] before the first observation, the incident while there is one, and
    /// [`Code::KeyUnusable`] when the key must not wrap or has no version that may.
    pub fn writer(&self, now: Monotonic) -> Result<Writer, KmsError> {
        if let Some(incident) = &self.incident {
            return Err(incident.clone());
        }
        let snapshot = self.current.as_ref().ok_or_else(|| {
            KmsError::new(
                Code::Starting,
                "the keeper has not been seen since this process started",
                "wait, or look for the cause in this process's log",
            )
        })?;
        if let Some(flaw) = &snapshot.flaw {
            return Err(flaw.clone());
        }
        let wall = self.clock.wall(now);
        let mut candidates = snapshot.versions.range(snapshot.write_floor()..);
        let lowest = candidates.clone().next();
        let aged = candidates.rfind(|(version, identity)| {
            Some(**version) <= self.settled || self.is_aged(**version, **identity, wall)
        });
        let (version, _) = aged.or(lowest).ok_or_else(|| {
            KmsError::new(
                Code::KeyUnusable,
                format!("no key version at or above {} can wrap", snapshot.write_floor()),
                "lower the key's minimum version for encryption, or rotate the key",
            )
        })?;
        self.writer_of(*version)
    }

    /// The next version that will write after `writing` does at `now`, and how long until then.
    #[must_use]
    pub fn next_takeover(
        &self,
        writing: KekVersion,
        now: Monotonic,
    ) -> Option<(KekVersion, Duration)> {
        let wall = self.clock.wall(now);
        let snapshot = self.current.as_ref()?;
        snapshot
            .versions
            .range(snapshot.write_floor()..)
            .filter(|(version, _)| **version > writing)
            .map(|(version, identity)| {
                let at = self.takes_over_at(*version, *identity);
                (*version, at.map_or(Duration::ZERO, |at| at.since(wall)))
            })
            .min_by_key(|(_, wait)| *wait)
    }

    /// The versions that write now or will write later, lowest first: those to be proven.
    #[must_use]
    pub fn writers_to_be(&self, now: Monotonic) -> Vec<Writer> {
        let (Ok(writer), Some(snapshot)) = (self.writer(now), &self.current) else {
            return Vec::new();
        };
        let versions = snapshot.versions.range(writer.version..);
        versions.filter_map(|(version, _)| self.writer_of(*version).ok()).collect()
    }

    /// The versions below `version` that the keeper lets write, newest first.
    pub fn writers_before(&self, version: KekVersion) -> impl Iterator<Item = Writer> {
        let allowed = self.current.iter().flat_map(move |snapshot| {
            let floor = snapshot.write_floor().min(version);
            snapshot.versions.range(floor..version).rev()
        });
        allowed.filter_map(|(version, _)| self.writer_of(*version).ok())
    }

    /// Whether the keeper lets `writer` write, whatever its age.
    #[must_use]
    pub fn may_wrap(&self, writer: &Writer) -> bool {
        self.current.as_ref().is_some_and(|snapshot| {
            writer.version >= snapshot.write_floor()
                && snapshot.versions.contains_key(&writer.version)
        })
    }

    /// What `key_id` means: see [`Resolution`].
    #[must_use]
    pub fn resolve(&self, key_id: &str) -> Resolution {
        if let Some(version) = self.accepted.get(key_id) {
            return match self.newest() {
                Some(newest) if *version > newest => Resolution::Newer(*version),
                _ if self.can_unwrap(*version) => Resolution::Known(*version),
                _ => Resolution::Archived(*version),
            };
        }
        let Some(claimed) = KeyId::version_claimed(key_id) else {
            return Resolution::Unknown;
        };
        match self.born.get(&claimed) {
            Some(born) if !self.is_named(key_id, claimed, born) => Resolution::Unknown,
            Some(_) if self.can_unwrap(claimed) => Resolution::Known(claimed),
            Some(_) => Resolution::Archived(claimed),
            None if self.newest().is_none_or(|newest| claimed > newest) => {
                Resolution::Newer(claimed)
            }
            None if self.current.as_ref().is_some_and(|c| claimed < c.min_decryption) => {
                Resolution::Retired(claimed)
            }
            None => Resolution::Unknown,
        }
    }

    /// The incident, while there is one.
    #[must_use]
    pub const fn incident(&self) -> Option<&KmsError> {
        self.incident.as_ref()
    }

    /// The last snapshot that belonged to the known key.
    #[must_use]
    pub const fn snapshot(&self) -> Option<&KekSnapshot> {
        self.current.as_ref()
    }

    /// The newest version ever seen.
    #[must_use]
    pub fn newest(&self) -> Option<KekVersion> {
        self.born.last_key_value().map(|(version, _)| *version)
    }

    /// Every version ever seen, lowest first.
    #[must_use]
    pub fn versions(&self) -> Vec<VersionView> {
        let view = |(version, born): (&KekVersion, &Born)| VersionView {
            version: *version,
            key_id: born.key_id.clone(),
            created: born.identity.created(),
            writes_from: self.takes_over_at(*version, born.identity),
            unwraps: self.can_unwrap(*version),
        };
        self.born.iter().map(view).collect()
    }

    fn accept(&mut self, snapshot: KekSnapshot, now: Monotonic, changes: &mut Vec<RingChange>) {
        let wall = self.clock.wall(now);
        for (version, identity) in &snapshot.versions {
            if !self.born.contains_key(version) {
                let key_id = self.identity.id_of(*version, *identity);
                self.born.insert(*version, Born { identity: *identity, key_id });
                changes.push(RingChange::Appeared(*version));
                let counts_from_now = match identity.created() {
                    Some(created) => created > wall.after(FUTURE_TOLERANCE),
                    None => self.current.is_some(),
                };
                if counts_from_now {
                    self.counted_from.insert(*version, wall);
                }
            }
        }
        if let Some(before) = &self.current {
            let gone = before.versions.keys().filter(|v| !snapshot.versions.contains_key(v));
            changes.extend(gone.map(|version| RingChange::Retired(*version)));
        }
        self.current = Some(snapshot);
    }

    fn replaced(&self, snapshot: &KekSnapshot) -> Option<KmsError> {
        let (version, _) = snapshot.versions.iter().find(|(version, identity)| {
            self.born.get(version).is_some_and(|known| known.identity != **identity)
        })?;
        Some(KmsError::new(
            Code::KeyReplaced,
            format!(
                "key version {version} is not the one that was known ({}): another key stands under this name",
                match snapshot.versions.get(version).and_then(|id| id.created()) {
                    Some(_) => "its creation time differs",
                    None => "its fingerprint differs",
                }
            ),
            "restore the former key; or, if the replacement was meant, restart this process (data under the former key is then unreadable)",
        ))
    }

    fn fell_behind(
        &mut self,
        answered: KekVersion,
        known: KekVersion,
        now: Monotonic,
    ) -> Vec<RingChange> {
        let since = *self.behind_since.get_or_insert(now);
        if now.since(since) < ROLLBACK_AFTER {
            return vec![RingChange::Lagging { answered, known }];
        }
        self.raise(KmsError::new(
            Code::KeyRolledBack,
            format!("the keeper's latest key version went from {known} back to {answered}"),
            "restore the key with its newest versions; or, if the older state is meant, restart this process",
        ))
    }

    fn raise(&mut self, incident: KmsError) -> Vec<RingChange> {
        if self.incident.as_ref() == Some(&incident) {
            return Vec::new();
        }
        self.incident = Some(incident.clone());
        vec![RingChange::IncidentRaised(incident)]
    }

    /// The version that writes because of its age, if that is why it does.
    fn aged_writer(&self, now: Monotonic) -> Option<KekVersion> {
        let version = self.writer(now).ok()?.version;
        let identity = self.current.as_ref()?.versions.get(&version)?;
        self.is_aged(version, *identity, self.clock.wall(now)).then_some(version)
    }

    fn writer_of(&self, version: KekVersion) -> Result<Writer, KmsError> {
        let born = self.born.get(&version).ok_or_else(|| {
            KmsError::new(Code::Internal, "a version that was never accepted", "report this")
        })?;
        Ok(Writer { version, key_id: born.key_id.clone() })
    }

    fn is_named(&self, key_id: &str, version: KekVersion, born: &Born) -> bool {
        born.key_id.as_str() == key_id || self.identity.names(key_id, version, born.identity)
    }

    fn can_unwrap(&self, version: KekVersion) -> bool {
        self.current.as_ref().is_some_and(|current| current.versions.contains_key(&version))
    }

    fn is_aged(&self, version: KekVersion, identity: VersionIdentity, wall: UnixTime) -> bool {
        self.takes_over_at(version, identity).is_none_or(|at| at <= wall)
    }

    /// Returns when a version is old enough to write; `None` where it counts as old.
    fn takes_over_at(&self, version: KekVersion, identity: VersionIdentity) -> Option<UnixTime> {
        let from = self.counted_from.get(&version).copied().or(identity.created())?;
        Some(from.after(self.delay))
    }
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "rotation_model.rs"]
mod model;
