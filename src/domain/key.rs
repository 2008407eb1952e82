//! A KEK as its keeper describes it: its versions, what identifies each, and what the keeper allows.

use std::{collections::BTreeMap, fmt, num::NonZeroU32};

use sha2::{Digest, Sha256};

use super::{error::KmsError, time::UnixTime};

/// The number of one version of the KEK, counted from 1 by its keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KekVersion(NonZeroU32);

impl KekVersion {
    /// The first version of a key.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The version `number`, or `None` for 0.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The plain number, never 0.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The version after this one; the same one at the very end of the range.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns all versions in order, the first one first.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=u32::MAX).filter_map(Self::new)
    }

    /// Reads the decimal form without sign, leading zero or blank, as keepers and key ids write it.
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

/// What a keeper can vouch for of one version: equal on every node, and never changed.
///
/// It becomes part of the version's `key_id` (`docs/formats.md`). A version that shows another
/// identity than before is of another key (`key-replaced`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VersionIdentity {
    /// The second in which the keeper made the version.
    Created(UnixTime),
    /// Something opaque, for keepers that know no time. A node counts the age of such a version from
    /// when it first saw it; a version that was there at the first look counts as old.
    Fingerprint(Fingerprint),
}

impl VersionIdentity {
    /// Returns the second in which the keeper made the version, where the keeper knows it.
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

/// What a keeper calls one version, such as a UUID or a key check value: its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Makes the fingerprint of `name`: bytes of any length that the keeper shows to anybody who may
    /// use the key, and that are no secret.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        Self(Sha256::digest(name).into())
    }

    /// Returns its 32 bytes.
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

/// What the keeper says of its key at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KekSnapshot {
    /// The versions that can still unwrap. Not empty unless `flaw` says why.
    pub versions: BTreeMap<KekVersion, VersionIdentity>,
    /// The newest version.
    pub latest: KekVersion,
    /// The lowest version the keeper unwraps with.
    pub min_decryption: KekVersion,
    /// The lowest version the keeper wraps with, where the operator set one.
    pub min_encryption: Option<KekVersion>,
    /// The keeper's clock when it answered, where it told.
    pub keeper_time: Option<UnixTime>,
    /// Why this key must not wrap at all, if so: it cannot bind, or cannot be told apart.
    pub flaw: Option<KmsError>,
    /// Settings that are allowed but that an operator should know of.
    pub warnings: Vec<KeyWarning>,
}

impl KekSnapshot {
    /// Makes the description of a key that can unwrap with `versions`. Its highest version is the
    /// latest, and its lowest one the lowest that the keeper unwraps with. Nothing else is known.
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

    /// Sets the newest version, for a key whose newest version may be unable to unwrap.
    #[must_use]
    pub fn with_latest(self, latest: KekVersion) -> Self {
        Self { latest, ..self }
    }

    /// Sets the lowest version that the keeper unwraps with.
    #[must_use]
    pub fn with_min_decryption(self, min_decryption: KekVersion) -> Self {
        Self { min_decryption, ..self }
    }

    /// Sets the lowest version that the operator lets wrap.
    #[must_use]
    pub fn with_min_encryption(self, version: Option<KekVersion>) -> Self {
        Self { min_encryption: version, ..self }
    }

    /// Sets the keeper's clock at its answer.
    #[must_use]
    pub fn with_keeper_time(self, keeper_time: Option<UnixTime>) -> Self {
        Self { keeper_time, ..self }
    }

    /// Sets why this key must not wrap.
    #[must_use]
    pub fn with_flaw(self, flaw: Option<KmsError>) -> Self {
        Self { flaw, ..self }
    }

    /// Sets the settings that an operator should know of.
    #[must_use]
    pub fn with_warnings(self, warnings: Vec<KeyWarning>) -> Self {
        Self { warnings, ..self }
    }

    /// Returns the lowest version that may write.
    #[must_use]
    pub fn write_floor(&self) -> KekVersion {
        self.min_encryption.unwrap_or(KekVersion::FIRST).max(self.min_decryption)
    }

    /// Returns, of what two nodes of one keeper say, what is of the newer key version, for one may be
    /// behind; this one where they agree.
    ///
    /// A key that replaced another one starts at 1 again, so of two keys the younger one is newer.
    /// Where no version is known to both, they count as one key.
    #[must_use]
    pub fn newer(self, other: Self) -> Self {
        let identified_otherwise = |(version, identity): (&KekVersion, &VersionIdentity)| {
            other.versions.get(version).is_some_and(|known| known != identity)
        };
        let youngest = |key: &Self| key.versions.values().filter_map(|id| id.created()).max();
        let other_is_newer = if self.versions.iter().any(identified_otherwise) {
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
    /// The name of the setting at the keeper.
    pub setting: &'static str,
    /// What the setting lets happen.
    pub danger: &'static str,
    /// How to be rid of it.
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
    fn of_two_nodes_the_one_that_knows_the_newest_version_is_believed() {
        for (known, other, believed) in [
            (&[10, 20][..], &[10][..], &[10, 20][..]),
            (&[10], &[10, 20], &[10, 20]),
            // Made within one second.
            (&[10], &[10, 10], &[10, 10]),
            // Another key under the same name.
            (&[10, 20], &[30], &[30]),
            (&[30], &[10, 20], &[30]),
        ] {
            let newer = snapshot(known).newer(snapshot(other));
            assert_eq!(newer, snapshot(believed), "{known:?} {other:?}");
        }
    }

    /// The second version was made by a node whose clock was ahead, and is not shown any more.
    #[test]
    fn of_one_key_the_number_decides_and_not_the_clock() {
        let mut trimmed = snapshot(&[10, 900, 30]);
        trimmed.versions.retain(|version, _| *version == trimmed.latest);
        assert_eq!(snapshot(&[10, 900]).newer(trimmed.clone()), trimmed);
    }

    #[test]
    fn where_two_nodes_agree_on_the_versions_the_first_is_believed() {
        let strict = snapshot(&[10, 20]).with_min_decryption(KekVersion::FIRST.next());
        assert_eq!(strict.clone().newer(snapshot(&[10, 20])), strict);
    }

    #[test]
    fn only_the_canonical_decimal_form_is_a_version() {
        assert_eq!(KekVersion::parse("12").map(KekVersion::get), Some(12));
        for bad in ["", "0", "01", "+1", "-1", " 1", "1 ", "4294967296", "x"] {
            assert_eq!(KekVersion::parse(bad), None, "{bad:?}");
        }
    }
}
