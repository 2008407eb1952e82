//! Describes a KEK as its keeper reports it: its versions, the identity of each version, and the
//! settings that limit their use.

use std::{collections::BTreeMap, fmt, num::NonZeroU32};

use sha2::{Digest, Sha256};

use super::{error::KmsError, time::UnixTime};

/// The number of one version of the KEK. The keeper counts from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KekVersion(NonZeroU32);

impl KekVersion {
    /// The first version of a key.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// Returns the version `number`, or `None` for 0.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Returns the number, which is never 0.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// Returns the place of the version in a list of all versions, where version 1 is at 0.
    #[must_use]
    pub fn index(self) -> usize {
        usize::try_from(self.get().saturating_sub(1)).unwrap_or(usize::MAX)
    }

    /// Returns the version after this one. At `u32::MAX` it returns the same version.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns all possible versions, lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=u32::MAX).filter_map(Self::new)
    }

    /// Reads the decimal form that keepers and key ids use: no sign, no leading zero, no blank.
    /// Returns `None` for any other text, and for a number above `u32::MAX`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        canonical.then(|| text.parse().ok()).flatten().and_then(Self::new)
    }
}

impl fmt::Display for KekVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What identifies one version: a value that is equal on every node and never changes.
///
/// It becomes part of the version's `key_id` (`docs/formats.md`). When the identity of a known
/// version changes, the version belongs to another key (`key-replaced`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VersionIdentity {
    /// The second in which the keeper made the version.
    Created(UnixTime),
    /// An opaque value, for keepers that do not record a creation time. This process counts the age
    /// of such a version from the moment when it first saw the version. A version that the first
    /// read of the key shows counts as old.
    Fingerprint(Fingerprint),
}

impl VersionIdentity {
    /// Returns the second in which the keeper made the version, or `None` for a fingerprint.
    #[must_use]
    pub const fn created(self) -> Option<UnixTime> {
        match self {
            Self::Created(time) => Some(time),
            Self::Fingerprint(_) => None,
        }
    }
}

impl From<UnixTime> for VersionIdentity {
    fn from(created: UnixTime) -> Self {
        Self::Created(created)
    }
}

/// The SHA-256 of a keeper's name for one version, such as a UUID or a key check value.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Makes the fingerprint of `name`. The name has any length and must not be secret: the keeper
    /// shows it to every user of the key.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        Self(Sha256::digest(name).into())
    }

    /// Returns the 32 bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, ..] = self.0;
        write!(f, "Fingerprint({first:02x}{second:02x}..)")
    }
}

/// The keeper's description of its key at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KekSnapshot {
    /// The versions that can still unwrap. Empty only when `flaw` is set.
    pub versions: BTreeMap<KekVersion, VersionIdentity>,
    /// The newest version.
    pub latest: KekVersion,
    /// The lowest version that the keeper unwraps with.
    pub min_decryption: KekVersion,
    /// The lowest version that the keeper wraps with. `None` when the operator set no limit.
    pub min_encryption: Option<KekVersion>,
    /// The keeper's clock at the time of its answer. `None` when the answer does not contain it.
    pub keeper_time: Option<UnixTime>,
    /// The reason why this key must not wrap at all. Examples: it does not bind associated data, or
    /// the keeper has two keys under one name.
    pub flaw: Option<KmsError>,
    /// Settings that are allowed but weaken the key.
    pub warnings: Vec<KeyWarning>,
}

impl KekSnapshot {
    /// Makes the description of a key that can unwrap with `versions`. Sets `latest` to the highest
    /// version and `min_decryption` to the lowest one. Leaves all other fields empty.
    #[must_use]
    pub fn new(versions: impl IntoIterator<Item = (KekVersion, VersionIdentity)>) -> Self {
        let versions: BTreeMap<_, _> = versions.into_iter().collect();
        let number = |entry: Option<(&KekVersion, _)>| entry.map_or(KekVersion::FIRST, |(v, _)| *v);
        Self {
            latest: number(versions.last_key_value()),
            min_decryption: number(versions.first_key_value()),
            versions,
            min_encryption: None,
            keeper_time: None,
            flaw: None,
            warnings: Vec::new(),
        }
    }

    /// Makes the description of a key from the identities of all its versions, version 1 first.
    /// `None` stands for a version that can no longer unwrap. Sets `latest` to the last one.
    #[must_use]
    pub fn of_all_versions(identities: impl IntoIterator<Item = Option<VersionIdentity>>) -> Self {
        let all: Vec<_> = KekVersion::all().zip(identities).collect();
        let latest = all.last().map_or(KekVersion::FIRST, |(version, _)| *version);
        let usable = all.into_iter().filter_map(|(version, identity)| Some((version, identity?)));
        Self::new(usable).with_latest(latest)
    }

    /// Sets the newest version. Use it for a key whose newest version cannot unwrap.
    #[must_use]
    pub fn with_latest(self, latest: KekVersion) -> Self {
        Self { latest, ..self }
    }

    /// Sets the lowest version that the keeper unwraps with.
    #[must_use]
    pub fn with_min_decryption(self, min_decryption: KekVersion) -> Self {
        Self { min_decryption, ..self }
    }

    /// Sets the lowest version that the keeper wraps with.
    #[must_use]
    pub fn with_min_encryption(self, version: Option<KekVersion>) -> Self {
        Self { min_encryption: version, ..self }
    }

    /// Sets the keeper's clock at the time of its answer.
    #[must_use]
    pub fn with_keeper_time(self, keeper_time: Option<UnixTime>) -> Self {
        Self { keeper_time, ..self }
    }

    /// Sets the reason why this key must not wrap.
    #[must_use]
    pub fn with_flaw(self, flaw: Option<KmsError>) -> Self {
        Self { flaw, ..self }
    }

    /// Sets the settings that weaken the key.
    #[must_use]
    pub fn with_warnings(self, warnings: Vec<KeyWarning>) -> Self {
        Self { warnings, ..self }
    }

    /// Returns the lowest version that may write: the higher one of the two minimum versions.
    #[must_use]
    pub fn write_floor(&self) -> KekVersion {
        self.min_encryption.unwrap_or(KekVersion::FIRST).max(self.min_decryption)
    }

    /// Returns the description with the newer key version. A node of the keeper may lag. Returns
    /// `self` on a tie.
    ///
    /// A replaced key starts at version 1 again. So when the two descriptions are of different
    /// keys, the key with the latest creation time is the newer one. Two descriptions without a
    /// common version count as one key.
    #[must_use]
    pub fn newer(self, other: Self) -> Self {
        let differs = |(version, identity): (&KekVersion, &VersionIdentity)| {
            other.versions.get(version).is_some_and(|known| known != identity)
        };
        let youngest = |key: &Self| key.versions.values().filter_map(|id| id.created()).max();
        let other_is_newer = if self.versions.iter().any(differs) {
            youngest(&other) > youngest(&self)
        } else {
            other.latest > self.latest
        };
        if other_is_newer { other } else { self }
    }
}

/// A setting of the key that weakens it without making it unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct KeyWarning {
    /// The keeper's name for the setting.
    pub setting: &'static str,
    /// The danger that the setting allows.
    pub danger: &'static str,
    /// What the operator can do about it.
    pub remedy: &'static str,
}

impl KeyWarning {
    /// Makes the warning about `setting`.
    #[must_use]
    pub const fn new(setting: &'static str, danger: &'static str, remedy: &'static str) -> Self {
        Self { setting, danger, remedy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(created: &[i64]) -> KekSnapshot {
        let created = created.iter().copied().map(|at| UnixTime::from_secs(at).into());
        KekSnapshot::new((1..).filter_map(KekVersion::new).zip(created))
    }

    #[test]
    fn prefers_the_node_that_knows_the_newest_version() {
        for (known, other, expected) in [
            (&[10, 20][..], &[10][..], &[10, 20][..]),
            (&[10], &[10, 20], &[10, 20]),
            // Two versions made within one second.
            (&[10], &[10, 10], &[10, 10]),
            // Another key under the same name.
            (&[10, 20], &[30], &[30]),
            (&[30], &[10, 20], &[30]),
        ] {
            let newer = snapshot(known).newer(snapshot(other));
            assert_eq!(newer, snapshot(expected), "{known:?} {other:?}");
        }
    }

    /// A node whose clock was ahead made version 2. The newer description no longer shows it.
    #[test]
    fn compares_version_numbers_and_not_creation_times_within_one_key() {
        let mut trimmed = snapshot(&[10, 900, 30]);
        trimmed.versions.retain(|version, _| *version == trimmed.latest);
        assert_eq!(snapshot(&[10, 900]).newer(trimmed.clone()), trimmed);
    }

    #[test]
    fn prefers_the_first_node_when_both_know_the_same_versions() {
        let strict = snapshot(&[10, 20]).with_min_decryption(KekVersion::FIRST.next());
        assert_eq!(strict.clone().newer(snapshot(&[10, 20])), strict);
    }

    #[test]
    fn describes_a_list_of_all_versions() {
        let created = |at| Some(UnixTime::from_secs(at).into());
        let described = KekSnapshot::of_all_versions([None, created(20), None]);
        let versions: Vec<_> = described.versions.keys().map(|version| version.get()).collect();
        assert_eq!((versions, described.latest.get()), (vec![2], 3));
        assert_eq!(described.min_decryption.index(), 1);
    }

    #[test]
    fn parses_only_the_canonical_decimal_form() {
        assert_eq!(KekVersion::parse("12").map(KekVersion::get), Some(12));
        for bad in ["", "0", "01", "+1", "-1", " 1", "1 ", "4294967296", "x"] {
            assert_eq!(KekVersion::parse(bad), None, "{bad:?}");
        }
    }
}
