//! The commands. This is the only module that chooses adapters and connects them.

mod conformance;
mod init;
mod inventory;
mod outcome;
mod progress;
mod rotation;
mod rewrite;
mod source;
mod table;
mod rewrite;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};
use outcome::Outcome;
use vault_kube_kms::{adapters::system::hardening, cli::program::BUILD};

use crate::domain::problem::Problem;

/// Wrong usage (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

/// Proves what is encrypted with what in a Kubernetes cluster, what may be retired, and that a
/// backup can be read.
///
/// Exit codes: 0 when the answer is good, 1 when it is not, 2 when there is no answer, 64 for wrong
/// usage.
#[derive(Debug, Parser)]
#[command(name = "vault-kube-kmsctl", version, long_version = BUILD)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says what is encrypted with which key version, and which versions may be retired.
    ///
    /// It reads etcd, or a snapshot of it, and changes nothing. It prints no value of an object. With
    /// the states of all nodes (--node) and all backups that may be restored (--snapshot) it gives
    /// the highest `min_decryption_version` that is safe.
    ///
    /// Exit codes: 0 when all is well, 1 when objects are unreadable, or in clear where they should
    /// be encrypted, or need an archived version, or --is-safe is not shown; 2 when there is no
    /// answer.
    Inventory(Box<inventory::Args>),
    /// Writes the files and the commands of a new installation, and says how far it is.
    Init(Box<init::Args>),
    /// Shows where a rotation of the key is, on all nodes and API servers, and what to type next.
    Rotation(Box<rotation::Args>),
    Conformance(conformance::Args),
    Rewrite(rewrite::Args),
}

impl Command {
    async fn run(self) -> Result<Outcome, Problem> {
        match self {
            Self::Inventory(args) => inventory::run(*args).await,
            Self::Init(args) => init::run(*args).await,
            Self::Rotation(args) => rotation::run(*args).await,
            Self::Conformance(args) => conformance::run(args).await,
            Self::Rewrite(args) => rewrite::run(args).await,
        }
    }
}

/// Returns the description of the command line, for the manual pages and the completions.
#[must_use]
pub fn description() -> clap::Command {
    Cli::command()
}

/// Runs the command that `args` (with the program's name) ask for.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Seeds and opened objects must not reach a core file.
    let _missed = hardening::harden();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(told) => {
            drop(told.print());
            return if told.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(|error| {
        Problem::new(
            "runtime-failed",
            format!("cannot start the runtime: {error}"),
            "raise the limits of this process",
        )
    });
    let done = done.and_then(|runtime| {
        let done = runtime.block_on(cli.command.run());
        runtime.shutdown_background();
        done
    });
    outcome::report(done)
}
