//! A program: its name, and its keepers. vault-kube-kms is one; an author of a keeper makes another.

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

/// A KMS v2 provider with keepers of its author's choice.
///
/// It has the commands `serve`, `check` and `policy`, `--help`, flags, variables and a configuration file,
/// probes, metrics and `/statusz`, all of it under its own name.
#[derive(Debug)]
pub struct Program {
    identity: Identity,
    kinds: Vec<Arc<dyn KeeperKind>>,
}

impl Program {
    /// A program without a keeper. `name` is that of its file, `version` what `--version` prints, `about`
    /// the first line of the help.
    #[must_use]
    pub const fn new(name: &'static str, version: &'static str, about: &'static str) -> Self {
        Self { identity: Identity { name, version, about }, kinds: Vec::new() }
    }

    /// vault-kube-kms itself.
    #[must_use]
    pub fn vault_kube_kms() -> Self {
        Self { kinds: keepers::registry(), ..Self::new("vault-kube-kms", VERSION, ABOUT) }
    }

    /// Adds a keeper. The first one is the default of `--keeper`.
    #[must_use]
    pub fn keeper(mut self, kind: impl KeeperKind + 'static) -> Self {
        self.kinds.push(Arc::new(kind));
        self
    }

    /// Runs the command that `args` (with the program's name) ask for, to its end. Lines that are
    /// still queued then are waited for, but not for long. Returns 0 after a clean stop, 1 after a failure,
    /// and 64 (`EX_USAGE` of sysexits.h) for wrong usage or configuration.
    #[must_use]
    pub fn run(self, args: impl Iterator<Item = OsString>) -> ExitCode {
        let catalogue = Arc::new(Catalogue::new(self.identity.name, self.kinds));
        let code = command::run(self.identity, &catalogue, args);
        outlets::flush(outlets::FLUSH);
        code
    }
}
