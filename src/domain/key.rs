//! A KEK as its keeper describes it: versions, their birth times and what the keeper allows.

use std::{collections::BTreeMap, fmt, num::NonZeroU32};

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

/// What the keeper says of its key at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekSnapshot {
    /// The versions that can still unwrap, each with the second in which it was made. Not empty
    /// unless `flaw` says why.
    pub versions: BTreeMap<KekVersion, UnixTime>,
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
    /// The lowest version that may write.
    #[must_use]
    pub fn write_floor(&self) -> KekVersion {
        self.min_encryption.unwrap_or(KekVersion::FIRST).max(self.min_decryption)
    }

    /// Of what two nodes of one keeper say, what is of the newer key version, for one may be behind;
    /// this one where they agree.
    ///
    /// A key that replaced another one starts at 1 again, so of two keys the younger one is newer.
    /// Where no version is known to both, they count as one key.
    #[must_use]
    pub fn newer(self, other: Self) -> Self {
        let dated_otherwise = |(version, created): (&KekVersion, &UnixTime)| {
            other.versions.get(version).is_some_and(|known| known != created)
        };
        let other_is_newer = if self.versions.iter().any(dated_otherwise) {
            other.versions.values().max() > self.versions.values().max()
        } else {
            other.latest > self.latest
        };
        if other_is_newer { other } else { self }
    }
}

/// A setting of the key that weakens it without making it unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeyWarning {
    /// The key can be read out of the keeper in clear through a backup.
    BackupAllowed,
    /// The key can be deleted, and all data with it.
    DeletionAllowed,
    /// The key can be exported in clear.
    Exportable,
}

impl KeyWarning {
    /// The name of the setting at the keeper.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BackupAllowed => "allow_plaintext_backup",
            Self::DeletionAllowed => "deletion_allowed",
            Self::Exportable => "exportable",
        }
    }

    /// What the setting lets happen.
    #[must_use]
    pub const fn danger(self) -> &'static str {
        match self {
            Self::BackupAllowed => "the key can be read in clear through a backup",
            Self::DeletionAllowed => "the key can be deleted, and all data with it",
            Self::Exportable => "the key can be read out of the keeper in clear",
        }
    }

    /// How to be rid of it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::DeletionAllowed => "set deletion_allowed=false on the key",
            Self::BackupAllowed | Self::Exportable => {
                "it cannot be unset: make a key without it, and move to that one"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(created: &[i64]) -> KekSnapshot {
        let versions = (1..)
            .filter_map(KekVersion::new)
            .zip(created.iter().copied().map(UnixTime::from_secs))
            .collect::<BTreeMap<_, _>>();
        KekSnapshot {
            latest: *versions.last_key_value().unwrap().0,
            versions,
            min_decryption: KekVersion::FIRST,
            min_encryption: None,
            keeper_time: None,
            flaw: None,
            warnings: Vec::new(),
        }
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
        let strict =
            KekSnapshot { min_decryption: KekVersion::FIRST.next(), ..snapshot(&[10, 20]) };
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
