//! The commands. This is the only module that chooses adapters and connects them.

mod conformance;
mod drill;
mod init;
mod inventory;
mod outcome;
mod progress;
mod rewrite;
mod rotation;
mod source;
mod table;

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

/// The commands. The description of each one is that of its arguments.
#[derive(Debug, Subcommand)]
enum Command {
    Inventory(Box<inventory::Args>),
    Rewrite(Box<rewrite::Args>),
    Drill(Box<drill::Args>),
    Rotation(Box<rotation::Args>),
    Conformance(Box<conformance::Args>),
    Init(Box<init::Args>),
}

impl Command {
    async fn run(self) -> Result<Outcome, Problem> {
        match self {
            Self::Inventory(args) => inventory::run(*args).await,
            Self::Rewrite(args) => rewrite::run(*args).await,
            Self::Drill(args) => drill::run(*args).await,
            Self::Rotation(args) => rotation::run(*args).await,
            Self::Conformance(args) => conformance::run(*args).await,
            Self::Init(args) => init::run(*args).await,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_of_nothing_is_wrong_usage() {
        assert!(Cli::try_parse_from(["vault-kube-kmsctl", "inventory"]).is_err());
        for source in ["--etcd-servers=http://127.0.0.1:2379", "--etcd-snapshot=before.db"] {
            assert!(Cli::try_parse_from(["vault-kube-kmsctl", "inventory", source]).is_ok());
        }
    }
}
