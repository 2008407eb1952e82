//! A program with a name and keepers. vault-kube-kms is such a program. An author of a keeper can
//! build another one.

use std::{alloc::System, ffi::OsString, process::ExitCode, sync::Arc};

use zeroizing_alloc::ZeroAlloc;

use super::{
    command::{self, Identity},
    version::{self, VERSION},
};
use crate::{
    adapters::telemetry::outlets,
    config::{
        catalogue::Catalogue,
        commands::ABOUT,
        keepers::{self, KeeperKind},
    },
};

/// An allocator that wipes each block of memory when it is freed, so that libraries leave no copy of
/// a seed behind.
pub type WipingAllocator = ZeroAlloc<System>;

/// The allocator of a program, for its `#[global_allocator]`.
pub const WIPING: WipingAllocator = ZeroAlloc(System);

/// The version of this crate, its commit, and whether this is a FIPS build, such as
/// `0.2.0 (commit 0123456789ab, no FIPS build)`.
pub const BUILD: &str = version::BUILD;

/// Writes the `main` of a program with the given keepers, the default first. The program has the
/// name of its file, and the version and description of its package. Its memory is wiped when it is
/// freed.
///
/// ```ignore
/// vault_kube_kms::program!(MY_KEEPER);
/// ```
#[macro_export]
macro_rules! program {
    ($($kind:expr),+ $(,)?) => {
        #[global_allocator]
        static ALLOCATOR: $crate::cli::program::WipingAllocator = $crate::cli::program::WIPING;

        fn main() -> ::std::process::ExitCode {
            $crate::cli::program::Program::new(
                ::std::env!("CARGO_BIN_NAME"),
                ::std::concat!(::std::env!("CARGO_BIN_NAME"), " ", ::std::env!("CARGO_PKG_VERSION")),
                ::std::env!("CARGO_PKG_DESCRIPTION"),
            )
            $(.keeper($kind))+
            .run(::std::env::args_os())
        }
    };
}

/// A KMS v2 provider with the keepers that its author chooses.
///
/// The program has the commands `serve`, `check` and `policy`. It reads flags, variables and a
/// configuration file, and serves probes, metrics and `/statusz`. All names contain the program's
/// name.
#[derive(Debug)]
pub struct Program {
    identity: Identity,
    kinds: Vec<KeeperKind>,
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
    pub fn keeper(mut self, kind: KeeperKind) -> Self {
        self.kinds.push(kind);
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
