//! Chooses the command and runs it.

use std::{ffi::OsString, process::ExitCode, sync::Arc};

use super::{
    check, dev, serve,
    terminal::{complain, print},
    version::check_fips_module,
};
use crate::{
    adapters::telemetry::program_name,
    config::{
        catalogue::Catalogue,
        commands::{self, KeeperCommand},
        error::ConfigError,
        settings::{self, Settings},
        sources::{Asked, Sources},
    },
    domain::error::KmsError,
};

/// The exit code for wrong usage or configuration (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

/// The name, version and description of a program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    /// The name of the program's file.
    pub(super) name: &'static str,
    /// The text that `--version`, the log and `/statusz` show.
    pub(super) version: &'static str,
    /// The first line of the help.
    pub(super) about: &'static str,
}

/// Runs the command that `args` (with the program's name) ask for, until it ends. Returns its exit
/// code.
pub(super) fn run(
    program: Identity,
    catalogue: &Arc<Catalogue>,
    args: impl Iterator<Item = OsString>,
) -> ExitCode {
    program_name::set(program.name);
    let Ok(args) = args.skip(1).map(OsString::into_string).collect::<Result<Vec<_>, _>>() else {
        return wrong_usage("an argument is not UTF-8");
    };
    let words = args.iter().take_while(|arg| !arg.starts_with('-')).count();
    let (words, rest) = args.split_at_checked(words).unwrap_or((&[], &args));
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    // The sources include the configuration file.
    let mut begun = matches!(words.as_slice(), [] | ["serve"]).then(serve::begin);
    let sources = Sources::of(catalogue, rest, variables());
    match (words.as_slice(), sources.asked) {
        (["help"], _) | (_, Some(Asked::Help)) => print(&commands::help(catalogue, program.about)),
        (["version"], _) | (_, Some(Asked::Version)) => print(program.version),
        _ if let Err(problem) = check_fips_module() => {
            complain(problem);
            ExitCode::FAILURE
        }
        (_, None) if let Some(begun) = begun.take() => match Settings::read(&sources) {
            Ok(settings) => serve::run(begun, &settings, program.version),
            Err(errors) => misconfigured(&errors),
        },
        (["check"], None) => check::run(&sources),
        (["policy"], None) => match settings::policy(&sources) {
            Ok(policy) => print(policy.trim_end()),
            Err(errors) => misconfigured(&errors),
        },
        (["dev"], None) if let Some(dev) = catalogue.dev() => {
            if rest.is_empty() {
                dev::run(program, dev)
            } else {
                wrong_usage("dev takes no flags")
            }
        }
        (words, None) if let Some(command) = keeper_command(catalogue, words) => {
            match settings::work(&sources, command) {
                Ok(work) => print_outcome(work()),
                Err(errors) => misconfigured(&errors),
            }
        }
        _ => wrong_usage(&format!("there is no command {:?}", words.join(" "))),
    }
}

/// Returns the keeper's command that consists of `words`.
fn keeper_command(catalogue: &Catalogue, words: &[&str]) -> Option<&'static KeeperCommand> {
    catalogue
        .keeper_commands()
        .find(|known| known.command.words.split(' ').eq(words.iter().copied()))
}

fn print_outcome(done: Result<String, KmsError>) -> ExitCode {
    match done {
        Ok(done) => print(&done),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Returns the environment without variables that are not UTF-8. The values of all flags are UTF-8,
/// and other variables do not matter.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn wrong_usage(problem: &str) -> ExitCode {
    complain(&format!("{problem}; see --help"));
    ExitCode::from(USAGE)
}

fn misconfigured(errors: &[ConfigError]) -> ExitCode {
    for error in errors {
        complain(&error.to_string());
    }
    let count = errors.len();
    complain(&format!("{count} configuration error(s), nothing was started; see --help"));
    ExitCode::from(USAGE)
}
