//! The view of the key at one moment, for `/statusz`, logs and `check`. Contains no secret.

use std::time::Duration;

use super::{
    health::Standing,
    key::KekVersion,
    rotation::{VersionView, Writer},
};

/// The most key versions that `/statusz` shows: the newest ones.
pub const VERSIONS_MAX: usize = 100;

/// What this process knows of the key at one moment.
#[derive(Clone, Debug)]
pub struct KeyView {
    /// The health that `Status` reports.
    pub standing: Standing,
    /// The version that writes. `None` when no version may write.
    pub writer: Option<Writer>,
    /// How long this process has written with that version. It can be some seconds too short.
    pub writing_for: Option<Duration>,
    /// All versions that this process has seen, lowest first.
    pub versions: Vec<VersionView>,
    /// The next version that will write, and the time until then.
    pub takeover: Option<(KekVersion, Duration)>,
    /// How long ago the key's metadata was last read.
    pub metadata_age: Option<Duration>,
    /// How long ago the version that writes was last proven.
    pub proof_age: Option<Duration>,
}
