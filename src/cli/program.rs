//! A program with a name and keepers. vault-kube-kms is such a program. An author of a keeper can
//! build another one.

use std::{ffi::OsString, process::ExitCode, sync::Arc};

use super::{
    command::{self, Identity},
    version::VERSION,
};
use crate::{
    adapters::telemetry::outlets,
    config::{
        catalogue::Catalogue,
        commands::ABOUT,
        keepers::{self, KeeperKind},
    },
};

/// A KMS v2 provider with the keepers that its author chooses.
///
/// The program has the commands `serve`, `check` and `policy`. It reads flags, variables and a
/// configuration file, and serves probes, metrics and `/statusz`. All names contain the program's
/// name.
#[derive(Debug)]
pub struct Program {
    identity: Identity,
    kinds: Vec<Arc<dyn KeeperKind>>,
}

impl Program {
    /// Returns a program without a keeper. `name` is the name of its file, `version` is the text
    /// that `--version` prints, and `about` is the first line of the help.
    #[must_use]
    pub const fn new(name: &'static str, version: &'static str, about: &'static str) -> Self {
        Self { identity: Identity { name, version, about }, kinds: Vec::new() }
    }

    /// Returns vault-kube-kms with its own keepers.
    #[must_use]
    pub fn vault_kube_kms() -> Self {
        Self { kinds: keepers::registry(), ..Self::new("vault-kube-kms", VERSION, ABOUT) }
    }

    /// Adds a keeper. The first keeper is the default of `--keeper`.
    #[must_use]
    pub fn keeper(mut self, kind: impl KeeperKind + 'static) -> Self {
        self.kinds.push(Arc::new(kind));
        self
    }

    /// Runs the command that `args` (with the program's name) ask for, until it ends. Then waits at
    /// most 1 s for each output with queued lines. Returns 0 after a clean stop, 1 after a failure,
    /// and 64 (`EX_USAGE` of sysexits.h) for wrong usage or configuration. `check` returns 0, 1 or
    /// 2.
    #[must_use]
    pub fn run(self, args: impl Iterator<Item = OsString>) -> ExitCode {
        let catalogue = Arc::new(Catalogue::new(self.identity.name, self.kinds));
        let code = command::run(self.identity, &catalogue, args);
        outlets::flush(outlets::FLUSH);
        code
    }
}
