//! The keepers by name, with their flags, and how each is made. The registry is a list; nothing else
//! chooses a keeper.

pub mod local;
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

/// A keeper by name, before anything is known of its settings.
pub trait KeeperKind: Debug + Send + Sync {
    /// Returns what `--keeper` calls it.
    fn name(&self) -> &'static str;

    /// Returns its flags, in groups of the help. Their names begin with its own, or are nothing else's.
    fn flags(&self) -> &'static [Group];

    /// Reads its settings. Returns `None` where something is wrong, with every error noted in
    /// `reading`.
    fn read(&self, reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperSettings>>;

    /// Returns its own commands, such as one that makes a key. Most keepers have none.
    fn commands(&self) -> &'static [KeeperCommand] {
        &[]
    }

    /// Returns what this program must be granted at the keeper, in the keeper's own language; `None`
    /// where something is wrong, with every error noted in `reading`. Needs only what names the key.
    fn policy(&self, reading: &mut Reading<'_>) -> Option<String> {
        reading.wrong("keeper", format!("the keeper {} has no policies", self.name()));
        None
    }
}

/// What one keeper was told, and how the keeper is made of it.
#[async_trait]
pub trait KeeperSettings: Debug + Send + Sync {
    /// Returns the place of the key for metrics (label `vault_connection`).
    fn connection(&self) -> String;

    /// Returns the values of metric labels that only this keeper has.
    fn labels(&self) -> Labels {
        Labels::default()
    }

    /// Returns what an operator should know of settings that work. Told at each start, and by
    /// `check`.
    fn warnings(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// Adds the files, ports and look-ups that the keeper uses while it runs. All else is refused by
    /// the sandbox.
    fn needs(&self, needs: &mut Needs);

    /// Adds to `report` what `check` finds of the files. Ends in bounded time.
    async fn check_files(&self, _report: &mut Report) {}

    /// Makes the keeper. Asks nothing of a server.
    ///
    /// # Errors
    /// Why it cannot be made, in words for the last line of the log.
    fn open(
        &self,
        surroundings: &Surroundings,
    ) -> Result<Arc<dyn Keeper>, Box<dyn Error + Send + Sync>>;
}

/// What a keeper is given beside its settings.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Time, and waiting.
    pub clock: Arc<dyn Clock>,
    /// What is told of it.
    pub telemetry: Arc<dyn Telemetry>,
    /// Changes each time that files are to be read again (SIGHUP).
    pub reread: watch::Receiver<()>,
}

/// Returns the keepers of vault-kube-kms, the default first.
#[must_use]
pub fn registry() -> Vec<Arc<dyn KeeperKind>> {
    vec![Arc::new(vault::Vault), Arc::new(local::Local)]
}

/// Reads which keeper is wanted, and its settings.
pub(super) fn read(reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperSettings>> {
    wanted(reading)?.read(reading)
}

/// Reads which keeper is wanted.
pub(super) fn wanted(reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperKind>> {
    let (wanted, kinds) = (reading.text("keeper"), reading.catalogue().kinds());
    if let Some(kind) = kinds.iter().find(|kind| kind.name() == wanted) {
        return Some(Arc::clone(kind));
    }
    let names = kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" or ");
    reading.wrong("keeper", format!("there is no keeper {wanted:?}; write {names}"));
    None
}
