//! What a drill says about the keeper that it asked.

use serde::Serialize;

/// The keeper of a drill.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KeeperFacts {
    /// The place of the key, or the socket of the plugin.
    pub place: String,
    /// The number of the newest version. `None` for a plugin, and when the key is missing.
    pub latest: Option<u32>,
    /// The number of the lowest version that the keeper unwraps with.
    pub min_decryption: Option<u32>,
    /// The key ids of the versions that unwrap, or the key id with which the plugin writes.
    pub key_ids: Vec<String>,
}

impl KeeperFacts {
    /// Returns the versions that the keeper unwraps with, such as `versions 2 to 7`. `None` when
    /// they are not known.
    #[must_use]
    pub fn range(&self) -> Option<String> {
        self.min_decryption.zip(self.latest).map(|(least, latest)| {
            if least == latest {
                format!("version {latest}")
            } else {
                format!("versions {least} to {latest}")
            }
        })
    }
}
