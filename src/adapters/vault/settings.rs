//! The settings of the keeper.

use std::path::PathBuf;

use super::{
    client_pair::PairPaths, login::LoginSettings, servers::ServerSettings, transit::TransitSettings,
};

/// All settings of the keeper.
#[derive(Clone, Debug)]
pub struct VaultSettings {
    /// The servers, and how to connect to them.
    pub servers: ServerSettings,
    /// How to log in.
    pub login: LoginSettings,
    /// The Transit key.
    pub transit: TransitSettings,
    /// The file of certificate authorities (`--tls-ca-file`). `None` when the system's authorities
    /// or no authorities are used.
    pub ca_file: Option<PathBuf>,
    /// The files of the client certificate (`--tls-client-cert-file`). `None` without a client
    /// certificate.
    pub client_pair: Option<PairPaths>,
}
