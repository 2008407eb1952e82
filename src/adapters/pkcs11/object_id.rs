//! Encodes the version and the creation time of a key object into its `CKA_ID` (`docs/formats.md`).

use crate::domain::{key::KekVersion, time::UnixTime};

/// Marks a `CKA_ID` that this program wrote: `VKK`, then 1 for the format.
const MAGIC: [u8; 4] = *b"VKK\x01";

/// Identifies one key object by its version and creation time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectId {
    /// The version number.
    pub version: KekVersion,
    /// The creation time in whole seconds, by the clock of the machine that ran the command.
    pub created: UnixTime,
}

impl ObjectId {
    /// Returns the 16 bytes of the `CKA_ID`. Writes a time before 1970 as 0.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let seconds = u64::try_from(self.created.secs()).unwrap_or(0);
        [&MAGIC[..], &self.version.get().to_be_bytes(), &seconds.to_be_bytes()].concat()
    }

    /// Reads a `CKA_ID`. Returns `None` for another format: another program made the key.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk()?;
        let (version, seconds) = rest.split_first_chunk()?;
        let seconds = i64::try_from(u64::from_be_bytes(*seconds.as_array()?)).ok()?;
        let version = KekVersion::new(u32::from_be_bytes(*version))?;
        (*magic == MAGIC).then_some(Self { version, created: UnixTime::from_secs(seconds) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token outlives releases, so the format never changes.
    #[test]
    fn keeps_the_format_of_the_id() {
        let version = KekVersion::new(7).unwrap();
        let id = ObjectId { version, created: UnixTime::from_secs(1_700_000_000) };
        assert_eq!(id.encode(), *b"VKK\x01\0\0\0\x07\0\0\0\0\x65\x53\xf1\0");
        assert_eq!(ObjectId::parse(&id.encode()), Some(id));
    }

    #[test]
    fn takes_other_bytes_for_a_foreign_key() {
        let good =
            ObjectId { version: KekVersion::FIRST, created: UnixTime::from_secs(1) }.encode();
        let mut other_magic = good.clone();
        other_magic[3] = 2;
        let zero_version = [&MAGIC[..], &[0; 12]].concat();
        let far = [&MAGIC[..], &[0, 0, 0, 1], &[0xff; 8]].concat();
        let long = [&good[..], &[0]].concat();
        for bad in [&[][..], &[1], &good[..15], &long, &other_magic, &zero_version, &far] {
            assert_eq!(ObjectId::parse(bad), None, "{bad:?}");
        }
    }
}
