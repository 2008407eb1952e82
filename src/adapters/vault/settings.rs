//! All that the keeper is told, as values.

use std::path::PathBuf;

use super::{approle::AppRoleSettings, client::ClientSettings, transit::TransitSettings};

/// All that the keeper is told.
#[derive(Clone, Debug)]
pub struct VaultSettings {
    /// Where it is.
    pub client: ClientSettings,
    /// How to log in.
    pub approle: AppRoleSettings,
    /// Which key.
    pub transit: TransitSettings,
    /// The file of the authorities, where they count (`--tls-ca-file`).
    pub ca_file: Option<PathBuf>,
}
