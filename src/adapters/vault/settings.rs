//! The settings of the keeper.

use std::path::PathBuf;

use super::{client::ClientSettings, login::LoginSettings, transit::TransitSettings};

/// All settings of the keeper.
#[derive(Clone, Debug)]
pub struct VaultSettings {
    /// The servers, and how to connect to them.
    pub client: ClientSettings,
    /// How to log in.
    pub login: LoginSettings,
    /// The Transit key.
    pub transit: TransitSettings,
    /// The file of certificate authorities (`--tls-ca-file`). `None` when the system's authorities
    /// or no authorities are used.
    pub ca_file: Option<PathBuf>,
}
