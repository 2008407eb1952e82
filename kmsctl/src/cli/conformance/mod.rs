//! `conformance`: whether a plugin does what the API server requires of KMS v2.

mod forms;
mod recorder;
mod report;

use std::{io, path::PathBuf, time::Duration};

use clap::ValueEnum;
use indicatif::ProgressBar;
use recorder::Plan;
use report::Report;
use vault_kube_kms::adapters::grpc::address::SocketAddress;

use super::outcome::{Outcome, print};
use crate::{
    adapters::{hook::ShellHook, socket::PluginSocket},
    domain::problem::Problem,
    ports::plugin::Hook,
};

/// Tries a KMS v2 plugin, ours or another one, against the rules that kube-apiserver enforces.
///
/// The plugin gets some hundred calls with random seeds. It stores nothing of them, and no object of a
/// cluster is touched. Exit codes: 0 when no rule of severity error is broken, 1 when one is, 2 when
/// nothing answers at the socket, 64 for wrong usage. The suite `tests/conformance` of the project
/// drives the client of kube-apiserver itself against the same socket.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(value_name = "SOCKET", help = "The socket of the plugin: unix:///path, unix:///@name, or a path", value_parser = SocketAddress::parse)]
    socket: SocketAddress,
    /// The deadline of each call in seconds: the timeout of the `EncryptionConfiguration`.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    /// How many seconds Status may take to become ok. OpenShift's preflight waits for 30.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u64).range(0..=600))]
    wait: u64,
    /// How many distinct seeds are wrapped and unwrapped at once, 64 at a time.
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    storm: u16,
    /// A command for `sh -c` that rotates the key.
    #[arg(long, value_name = "COMMAND")]
    rotate: Option<String>,
    /// How many seconds Status may take to show the rotation.
    #[arg(long, value_name = "SECONDS", default_value = "180", value_parser = clap::value_parser!(u64).range(1..=3600))]
    rotated_within: u64,
    /// A command for `sh -c` that restarts the plugin. It returns while the plugin runs.
    #[arg(long, value_name = "COMMAND")]
    restart: Option<String>,
    /// The form of the report on standard output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    #[arg(long, help = "A file for the report in JUnit's XML", value_name = "FILE")]
    junit: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    /// Lines for people.
    #[default]
    Text,
    /// JSON with all rules and the measured times.
    Json,
}

pub(super) async fn run(args: Args) -> Result<Outcome, Problem> {
    let hook = |command: String| -> Box<dyn Hook> { Box::new(ShellHook::new(command)) };
    let limit = Duration::from_secs(args.rotated_within);
    let plan = Plan {
        timeout: Duration::from_secs(args.timeout),
        wait: Duration::from_secs(args.wait),
        storm: args.storm.into(),
        rotate: args.rotate.map(|command| (hook(command), limit)),
        restart: args.restart.map(hook),
    };
    let name = args.socket.to_string();
    let socket = PluginSocket::new(args.socket, plan.timeout);
    // It shows nothing when standard error is not a terminal.
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    let record = recorder::record(&socket, &plan, &|part| bar.set_message(part)).await;
    bar.finish_and_clear();
    let report = Report::of(&record?, name);
    if let Some(file) = args.junit {
        tokio::fs::write(&file, report.junit()).await.map_err(|error| {
            Problem::new(
                "junit-unwritable",
                format!("cannot write {}: {error}", file.display()),
                "give --junit a file in a writable directory",
            )
        })?;
    }
    print(&match args.output {
        Output::Text => report.text(),
        Output::Json => {
            serde_json::to_string_pretty(&report).map_err(io::Error::from).map_err(|error| {
                Problem::new("report-failed", error, "report this as a fault of the program")
            })?
        }
    })?;
    Ok(if report.is_good() { Outcome::Good } else { Outcome::Bad })
}
