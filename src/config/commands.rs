//! All commands, for the help, the manual page and the completions.

use std::fmt::Write as _;

use super::{catalogue::Catalogue, reading::Reading};
use crate::domain::error::KmsError;

/// One command.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// The words of the command, with a space between them.
    pub words: &'static str,
    /// How to type the command, after the program's name.
    pub usage: &'static str,
    /// What the command does.
    pub help: &'static str,
}

/// A command of one keeper, such as `local init`. The first word is the keeper's name.
#[derive(Clone, Copy, Debug)]
pub struct KeeperCommand {
    /// The words, usage and help of the command.
    pub command: Command,
    /// Reads the settings of the command. Returns the work to do, or `None` after an error. All
    /// errors are added to the reading.
    pub read: fn(&mut Reading<'_>) -> Option<Work>,
}

/// The work of a keeper's command. It may block. Returns the text to print.
pub type Work = Box<dyn FnOnce() -> Result<String, KmsError>>;

const fn command(words: &'static str, usage: &'static str, help: &'static str) -> Command {
    Command { words, usage, help }
}

/// The commands of every program.
const COMMANDS: [Command; 3] = [
    command("serve", "[serve] [FLAGS]", "serve kube-apiserver on a Unix socket"),
    command("check", "check [FLAGS]", "check the installation with those flags"),
    command("policy", "policy [FLAGS]", "print the policy that the role needs"),
];

/// The command of programs with a keeper that has a key for it.
const DEV: Command = command("dev", "dev", "try it: a new key, no server, no configuration");

/// The description of vault-kube-kms.
pub const ABOUT: &str =
    "A Kubernetes KMS v2 provider whose key stays in Vault's or OpenBao's Transit engine.";

/// Returns the commands of the program of `catalogue`. The commands of its keepers come last.
#[must_use]
pub fn commands(catalogue: &Catalogue) -> Vec<Command> {
    let dev = catalogue.dev().map(|_dev| DEV);
    let of_keepers = catalogue.keeper_commands().map(|of_keeper| of_keeper.command);
    COMMANDS.into_iter().chain(dev).chain(of_keepers).collect()
}

/// Returns the help of the program of `catalogue`: description, commands, then flags.
#[must_use]
pub fn help(catalogue: &Catalogue, about: &str) -> String {
    let program = catalogue.program();
    let mut text = format!("{about}\n\nUsage:\n");
    for Command { usage, help, .. } in commands(catalogue) {
        let _infallible = writeln!(text, "  {program} {usage:<22}{help}");
    }
    let _infallible = write!(
        text,
        "  {program} --help | --version\n\n\
         Flags take one dash or two. Each has a variable, {}_ and its name in capitals\n\
         with underscores, and a key in the --config file; flags win over variables over the file.\n",
        catalogue.prefix()
    );
    text + &catalogue.help()
}
