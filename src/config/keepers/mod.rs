//! The keepers by name, their flags, and how each is opened. The registry is a list. Nothing else
//! chooses a keeper.

pub mod local;
#[cfg(feature = "pkcs11")]
pub mod pkcs11;
pub mod vault;

use std::{error::Error, fmt::Debug, path::Path, sync::Arc};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{commands::KeeperCommand, flags::Group, reading::Reading};
use crate::{
    adapters::system::{reread::Reread, sandbox::Needs, watched_file::WatchedFile},
    domain::error::KmsError,
    ports::{
        clock::Clock,
        file::TextFile,
        finding::{Finding, Report},
        keeper::{Keeper, Labels},
        telemetry::Telemetry,
    },
};

/// A kind of keeper, before its settings are read.
#[derive(Clone, Copy, Debug)]
pub struct KeeperKind {
    pub(super) name: &'static str,
    pub(super) flags: &'static [Group],
    read: Read<Arc<dyn KeeperSettings>>,
    pub(super) commands: &'static [KeeperCommand],
    policy: Option<Read<String>>,
    pub(super) dev: Option<Dev>,
}

/// Reads values. Returns `None` after an error. All errors are added to the reading.
type Read<T> = fn(&mut Reading<'_>) -> Option<T>;

/// Makes a new key in an empty directory. Returns the settings of the keeper of that key.
pub type Dev = fn(&Path) -> Result<Arc<dyn KeeperSettings>, KmsError>;

impl KeeperKind {
    /// Makes a kind without commands and without a policy.
    ///
    /// `name` is the value of `--keeper`. `flags` are the keeper's flags, in groups of the help: the
    /// name of a flag begins with `name`, or no other keeper may have that flag. `read` reads the
    /// settings; it returns `None` after an error and adds all errors to the reading.
    #[must_use]
    pub const fn new(
        name: &'static str,
        flags: &'static [Group],
        read: fn(&mut Reading<'_>) -> Option<Arc<dyn KeeperSettings>>,
    ) -> Self {
        Self { name, flags, read, commands: &[], policy: None, dev: None }
    }

    /// Adds the keeper's own commands, such as a command that creates a key.
    #[must_use]
    pub const fn with_commands(self, commands: &'static [KeeperCommand]) -> Self {
        Self { commands, ..self }
    }

    /// Adds the command `policy`. `policy` returns the policy that this program needs at the
    /// keeper, in the keeper's own language. It needs only the settings that name the key. It
    /// returns `None` after an error and adds all errors to the reading.
    #[must_use]
    pub const fn with_policy(self, policy: fn(&mut Reading<'_>) -> Option<String>) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// Adds the command `dev`, which serves a new key from a temporary directory.
    #[must_use]
    pub const fn with_dev(self, dev: Dev) -> Self {
        Self { dev: Some(dev), ..self }
    }

    /// Returns the keeper's policy. Returns `None` after an error, which is added to `reading`.
    pub(super) fn policy(self, reading: &mut Reading<'_>) -> Option<String> {
        if let Some(policy) = self.policy {
            return policy(reading);
        }
        reading.wrong("keeper", format!("the keeper {} has no policies", self.name));
        None
    }
}

/// A keeper, or the reason why it cannot be opened.
pub type Opened = Result<Arc<dyn Keeper>, Box<dyn Error + Send + Sync>>;

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

    /// Opens the keeper. Sends no request to a server, and starts no thread: the sandbox does not
    /// apply to a thread that starts before it. So this function is not async.
    ///
    /// # Errors
    /// When the keeper cannot be opened. The text is the last line of the log.
    fn open(&self, surroundings: &Surroundings) -> Opened;
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
    /// Whether this process serves API servers. Any other process, such as `check` or a drill, must
    /// not use up a wrapping token, which works once, because the provider needs it.
    pub serves: bool,
}

impl Surroundings {
    /// Returns the text file at `path`, of at most `most` bytes. It reports a change when it is
    /// replaced or written, and at each SIGHUP.
    #[must_use]
    pub fn watched_file(&self, path: &Path, most: u64) -> Arc<dyn TextFile> {
        let file = Arc::new(WatchedFile::new(path.to_owned(), most));
        Arc::new(Reread::new(file, self.reread.clone()))
    }
}

/// Returns the keepers of vault-kube-kms, the default first.
#[must_use]
pub fn registry() -> Vec<KeeperKind> {
    vec![
        vault::VAULT,
        local::LOCAL,
        #[cfg(feature = "pkcs11")]
        pkcs11::PKCS11,
    ]
}

/// Reads `--keeper` and the settings of that keeper.
pub(super) fn read(reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperSettings>> {
    (wanted(reading)?.read)(reading)
}

/// Reads `--keeper`.
pub(super) fn wanted(reading: &mut Reading<'_>) -> Option<KeeperKind> {
    let (wanted, kinds) = (reading.text("keeper"), reading.catalogue().kinds());
    if let Some(kind) = kinds.iter().find(|kind| kind.name == wanted) {
        return Some(*kind);
    }
    let names = kinds.iter().map(|kind| kind.name).collect::<Vec<_>>().join(" or ");
    reading.wrong("keeper", format!("there is no keeper {wanted:?}; write {names}"));
    None
}
