//! The keepers by name, their flags, and how each is opened. The registry is a list. Nothing else
//! chooses a keeper.

pub mod local;
#[cfg(feature = "pkcs11")]
pub mod pkcs11;
pub mod vault;

use std::{error::Error, fmt::Debug, sync::Arc};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{commands::KeeperCommand, flags::Group, reading::Reading};
use crate::{
    adapters::system::sandbox::Needs,
    ports::{
        clock::Clock,
        finding::{Finding, Report},
        keeper::{Keeper, Labels},
        telemetry::Telemetry,
    },
};

/// A kind of keeper, before its settings are read.
pub trait KeeperKind: Debug + Send + Sync {
    /// Returns the value of `--keeper` for this keeper.
    fn name(&self) -> &'static str;

    /// Returns the keeper's flags, in groups of the help. A flag's name begins with the keeper's
    /// name, or no other keeper may have that flag.
    fn flags(&self) -> &'static [Group];

    /// Reads the keeper's settings. Returns `None` after an error. All errors are added to
    /// `reading`.
    fn read(&self, reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperSettings>>;

    /// Returns the keeper's own commands, such as a command that creates a key. Most keepers have
    /// none.
    fn commands(&self) -> &'static [KeeperCommand] {
        &[]
    }

    /// Returns the policy that this program needs at the keeper, in the keeper's own language.
    /// Needs only the settings that name the key. Returns `None` after an error. All errors are
    /// added to `reading`.
    fn policy(&self, reading: &mut Reading<'_>) -> Option<String> {
        reading.wrong("keeper", format!("the keeper {} has no policies", self.name()));
        None
    }
}

/// The settings of one keeper, which open the keeper.
#[async_trait]
pub trait KeeperSettings: Debug + Send + Sync {
    /// Returns the place of the key for metrics (label `vault_connection`).
    fn connection(&self) -> String;

    /// Returns the values of metric labels that only this keeper has.
    fn labels(&self) -> Labels {
        Labels::default()
    }

    /// Returns warnings about settings that are valid. `serve` logs them at each start, and `check`
    /// prints them.
    fn warnings(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// Adds the files, ports and DNS look-ups that the keeper uses while it runs. The sandbox
    /// refuses everything else.
    fn needs(&self, needs: &mut Needs);

    /// Checks the files of the settings and adds the findings to `report`. Ends in bounded time.
    async fn check_files(&self, _report: &mut Report) {}

    /// Opens the keeper. Sends no request to a server.
    ///
    /// # Errors
    /// When the keeper cannot be opened. The text is the last line of the log.
    fn open(
        &self,
        surroundings: &Surroundings,
    ) -> Result<Arc<dyn Keeper>, Box<dyn Error + Send + Sync>>;
}

/// What a keeper needs in addition to its settings.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The clock, which also waits.
    pub clock: Arc<dyn Clock>,
    /// Receives the keeper's events.
    pub telemetry: Arc<dyn Telemetry>,
    /// Changes at each SIGHUP. The keeper then reads its files again.
    pub reread: watch::Receiver<()>,
}

/// Returns the keepers of vault-kube-kms, the default first.
#[must_use]
pub fn registry() -> Vec<Arc<dyn KeeperKind>> {
    vec![
        Arc::new(vault::Vault),
        Arc::new(local::Local),
        #[cfg(feature = "pkcs11")]
        Arc::new(pkcs11::Pkcs11),
    ]
}

/// Reads `--keeper` and the settings of that keeper.
pub(super) fn read(reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperSettings>> {
    wanted(reading)?.read(reading)
}

/// Reads `--keeper`.
pub(super) fn wanted(reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperKind>> {
    let (wanted, kinds) = (reading.text("keeper"), reading.catalogue().kinds());
    if let Some(kind) = kinds.iter().find(|kind| kind.name() == wanted) {
        return Some(Arc::clone(kind));
    }
    let names = kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" or ");
    reading.wrong("keeper", format!("there is no keeper {wanted:?}; write {names}"));
    None
}
