//! The key ring decides which version writes, which versions unwrap, and when the next version
//! takes over. It also detects that the keeper answers with another key, or with an older state of
//! the key.

use std::{collections::BTreeMap, time::Duration};

use super::{
    corrected_clock::CorrectedClock,
    error::{Code, KmsError},
    key::{KekSnapshot, KekVersion, VersionIdentity},
    key_id::{KeyId, KeyIdentity},
    time::{Monotonic, UnixTime},
};

/// How far in the future a creation time may be. The age of a version with a later creation time
/// counts from the moment when this process first saw the version.
const FUTURE_TOLERANCE: Duration = Duration::from_secs(5);

/// How long the latest version must stay lower than the known one to count as a rollback. Within
/// this time it counts as the answer of a lagging node.
const ROLLBACK_AFTER: Duration = Duration::from_mins(1);

/// A version that wraps, and its key id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The key version that wraps.
    pub version: KekVersion,
    /// The key id of that version.
    pub key_id: KeyId,
}

/// A version that this process has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionView {
    /// The number of the version.
    pub version: KekVersion,
    /// The key id of the version.
    pub key_id: KeyId,
    /// When the keeper made the version. `None` when the keeper does not record it.
    pub created: Option<UnixTime>,
    /// When the version is old enough to write. `None` for a version without a creation time that
    /// the first read of the key showed; it counts as old.
    pub writes_from: Option<UnixTime>,
    /// Whether the keeper still unwraps with the version.
    pub unwraps: bool,
}

/// The result of a search for a key id in this ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The id of a version that can unwrap.
    Known(KekVersion),
    /// The form is right and the version is above the newest known one. Another node may know it.
    Newer(KekVersion),
    /// The id of a known version that the keeper did not unwrap with at the last read. The operator
    /// may have lowered the minimum version since.
    Archived(KekVersion),
    /// The form is right and the version is below the keeper's minimum version. This process has
    /// never seen the version, so it cannot check the id.
    Retired(KekVersion),
    /// Not an id of this key.
    Unknown,
}

/// A change that one answer of the keeper caused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingChange {
    /// A version was seen for the first time.
    Appeared(KekVersion),
    /// A known version can no longer unwrap.
    Retired(KekVersion),
    /// The keeper answered with an older state of the key. The ring ignores the answer.
    Lagging {
        /// The latest version of that answer.
        answered: KekVersion,
        /// The latest version that was known.
        known: KekVersion,
    },
    /// The keeper's key was replaced or rolled back.
    IncidentRaised(KmsError),
    /// The keeper answers with the known key again.
    IncidentCleared,
}

/// The facts about a version that never change.
#[derive(Clone, Debug)]
struct SeenVersion {
    identity: VersionIdentity,
    /// Computed once, because each Status reads it.
    key_id: KeyId,
}

/// The state of one KEK: a pure state machine. Its inputs are snapshots and times.
#[derive(Clone, Debug)]
pub struct KeyRing {
    identity: KeyIdentity,
    delay: Duration,
    accepted: BTreeMap<String, KekVersion>,
    clock: CorrectedClock,
    current: Option<KekSnapshot>,
    /// All versions that this process has seen, also those that no longer unwrap.
    seen: BTreeMap<KekVersion, SeenVersion>,
    /// When this process first saw a version whose creation time is unknown or in the future. The
    /// age of the version counts from then.
    counted_from: BTreeMap<KekVersion, UnixTime>,
    /// When the current run of answers with an older state of the key began.
    behind_since: Option<Monotonic>,
    incident: Option<KmsError>,
    /// The newest version that was old enough to write. It stays old enough when the clock is
    /// corrected backwards.
    newest_aged: Option<KekVersion>,
}

impl KeyRing {
    /// Makes an empty ring. `delay` is the age at which a new version begins to write. `accepted`
    /// maps key ids from before a re-import to the versions that unwrap their objects now.
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
            seen: BTreeMap::new(),
            counted_from: BTreeMap::new(),
            behind_since: None,
            incident: None,
            newest_aged: None,
        }
    }

    /// Processes one answer of the keeper, received at `now`. `wall` is the local clock at that
    /// moment. Returns what the answer changed.
    pub fn observe(
        &mut self,
        snapshot: KekSnapshot,
        now: Monotonic,
        wall: UnixTime,
    ) -> Vec<RingChange> {
        self.newest_aged = self.newest_aged.max(self.aged_writer(now));
        self.clock = CorrectedClock::set(wall, snapshot.keeper_time, now);
        if let Some(incident) = self.find_replacement(&snapshot) {
            return self.raise(incident);
        }
        if let Some(known) = self.newest().filter(|known| snapshot.latest < *known) {
            return self.record_older_answer(snapshot.latest, known, now);
        }
        self.behind_since = None;
        let mut changes = Vec::new();
        if self.incident.take().is_some() {
            changes.push(RingChange::IncidentCleared);
        }
        self.accept(snapshot, now, &mut changes);
        changes
    }

    /// Returns the version that writes at `now`.
    ///
    /// It is the highest version at or above the keeper's minimum versions whose age is at least
    /// the rotation delay. If no version is that old, it is the lowest version at or above the
    /// minimum versions.
    ///
    /// # Errors
    /// [`Code::Starting`] before the first answer of the keeper; the incident while there is one;
    /// the `flaw` of the key; [`Code::KeyUnusable`] when no version is at or above the minimum
    /// versions.
    pub fn writer(&self, now: Monotonic) -> Result<Writer, KmsError> {
        if let Some(incident) = &self.incident {
            return Err(incident.clone());
        }
        let snapshot = self.current.as_ref().ok_or_else(|| {
            KmsError::new(
                Code::Starting,
                "the keeper has not answered since this process started",
                "wait a few seconds; if this lasts, look for the cause in this process's log",
            )
        })?;
        if let Some(flaw) = &snapshot.flaw {
            return Err(flaw.clone());
        }
        let wall = self.clock.wall(now);
        let mut candidates = snapshot.versions.range(snapshot.write_floor()..);
        let lowest = candidates.clone().next();
        let aged = candidates.rfind(|(version, identity)| {
            Some(**version) <= self.newest_aged || self.is_aged(**version, **identity, wall)
        });
        let (version, _) = aged.or(lowest).ok_or_else(|| {
            KmsError::new(
                Code::KeyUnusable,
                format!("the key has no usable version at or above {}", snapshot.write_floor()),
                "lower the key's minimum version for encryption, or rotate the key",
            )
        })?;
        self.writer_of(*version)
    }

    /// Returns the version that will write after `writing`, and the time from `now` until then.
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

    /// Returns the version that writes now and all versions that will write later, lowest first.
    #[must_use]
    pub fn current_and_future_writers(&self, now: Monotonic) -> Vec<Writer> {
        let (Ok(writer), Some(snapshot)) = (self.writer(now), &self.current) else {
            return Vec::new();
        };
        let versions = snapshot.versions.range(writer.version..);
        versions.filter_map(|(version, _)| self.writer_of(*version).ok()).collect()
    }

    /// Returns the versions below `version` that the keeper allows to write, newest first.
    pub fn writers_before(&self, version: KekVersion) -> impl Iterator<Item = Writer> {
        let allowed = self.current.iter().flat_map(move |snapshot| {
            let floor = snapshot.write_floor().min(version);
            snapshot.versions.range(floor..version).rev()
        });
        allowed.filter_map(|(version, _)| self.writer_of(*version).ok())
    }

    /// Returns whether the keeper allows `writer` to write. Ignores the age of the version.
    #[must_use]
    pub fn may_wrap(&self, writer: &Writer) -> bool {
        self.current.as_ref().is_some_and(|snapshot| {
            writer.version >= snapshot.write_floor()
                && snapshot.versions.contains_key(&writer.version)
        })
    }

    /// Finds the version that `key_id` names.
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
        match self.seen.get(&claimed) {
            Some(seen) if !self.is_named(key_id, claimed, seen) => Resolution::Unknown,
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

    /// Returns whether the operator says which version `key_id` names (`--accept-key-id`).
    #[must_use]
    pub fn is_accepted(&self, key_id: &str) -> bool {
        self.accepted.contains_key(key_id)
    }

    /// Returns the incident while there is one: the key was replaced or rolled back.
    #[must_use]
    pub const fn incident(&self) -> Option<&KmsError> {
        self.incident.as_ref()
    }

    /// Returns the last snapshot that the ring accepted.
    #[must_use]
    pub const fn snapshot(&self) -> Option<&KekSnapshot> {
        self.current.as_ref()
    }

    /// Returns the newest version that this process has seen.
    #[must_use]
    pub fn newest(&self) -> Option<KekVersion> {
        self.seen.last_key_value().map(|(version, _)| *version)
    }

    /// Returns all versions that this process has seen, lowest first.
    #[must_use]
    pub fn versions(&self) -> Vec<VersionView> {
        let view = |(version, seen): (&KekVersion, &SeenVersion)| VersionView {
            version: *version,
            key_id: seen.key_id.clone(),
            created: seen.identity.created(),
            writes_from: self.takes_over_at(*version, seen.identity),
            unwraps: self.can_unwrap(*version),
        };
        self.seen.iter().map(view).collect()
    }

    fn accept(&mut self, snapshot: KekSnapshot, now: Monotonic, changes: &mut Vec<RingChange>) {
        let wall = self.clock.wall(now);
        for (version, identity) in &snapshot.versions {
            if !self.seen.contains_key(version) {
                let key_id = self.identity.id_of(*version, *identity);
                self.seen.insert(*version, SeenVersion { identity: *identity, key_id });
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

    /// Returns the incident when a known version has another identity in `snapshot`.
    fn find_replacement(&self, snapshot: &KekSnapshot) -> Option<KmsError> {
        let (version, _) = snapshot.versions.iter().find(|(version, identity)| {
            self.seen.get(version).is_some_and(|known| known.identity != **identity)
        })?;
        Some(KmsError::new(
            Code::KeyReplaced,
            format!(
                "key version {version} is not the known one ({}): this name now belongs to another key",
                match snapshot.versions.get(version).and_then(|id| id.created()) {
                    Some(_) => "its creation time differs",
                    None => "its fingerprint differs",
                }
            ),
            "restore the former key; or, if you replaced it on purpose, restart this process (data under the former key is then unreadable)",
        ))
    }

    /// Handles an answer whose latest version is lower than the known one: a lagging node at first,
    /// a rollback after [`ROLLBACK_AFTER`].
    fn record_older_answer(
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
            "restore the key with its newest versions; or, if you restored the older state on purpose, restart this process",
        ))
    }

    fn raise(&mut self, incident: KmsError) -> Vec<RingChange> {
        if self.incident.as_ref() == Some(&incident) {
            return Vec::new();
        }
        self.incident = Some(incident.clone());
        vec![RingChange::IncidentRaised(incident)]
    }

    /// Returns the version that writes, when it writes because of its age.
    fn aged_writer(&self, now: Monotonic) -> Option<KekVersion> {
        let version = self.writer(now).ok()?.version;
        let identity = self.current.as_ref()?.versions.get(&version)?;
        self.is_aged(version, *identity, self.clock.wall(now)).then_some(version)
    }

    fn writer_of(&self, version: KekVersion) -> Result<Writer, KmsError> {
        let seen = self.seen.get(&version).ok_or_else(|| {
            let cause = format!("key version {version} is missing in the key ring");
            KmsError::new(Code::Internal, cause, "report this as a bug")
        })?;
        Ok(Writer { version, key_id: seen.key_id.clone() })
    }

    fn is_named(&self, key_id: &str, version: KekVersion, seen: &SeenVersion) -> bool {
        seen.key_id.as_str() == key_id || self.identity.names(key_id, version, seen.identity)
    }

    fn can_unwrap(&self, version: KekVersion) -> bool {
        self.current.as_ref().is_some_and(|current| current.versions.contains_key(&version))
    }

    fn is_aged(&self, version: KekVersion, identity: VersionIdentity, wall: UnixTime) -> bool {
        self.takes_over_at(version, identity).is_none_or(|at| at <= wall)
    }

    /// Returns when a version is old enough to write, or `None` when it counts as old already.
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
