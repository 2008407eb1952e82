//! What is known of the key at one moment, for those who look on. Plain values, nothing secret.

use std::time::Duration;

use super::{
    health::Standing,
    key::KekVersion,
    rotation::{VersionView, Writer},
};

/// The key as it is known now.
#[derive(Clone, Debug)]
pub struct KeyView {
    /// What `Status` answers.
    pub standing: Standing,
    /// The version that writes, where one is known.
    pub writer: Option<Writer>,
    /// Every version that was ever seen, lowest first.
    pub versions: Vec<VersionView>,
    /// The next version that will write, and how long until then.
    pub takeover: Option<(KekVersion, Duration)>,
    /// How long ago the key's metadata was last read.
    pub metadata_age: Option<Duration>,
    /// How long ago the version that writes was last proven.
    pub proof_age: Option<Duration>,
}
