//! Every command there is, for the help and what else is made of it.

use std::fmt::Write as _;

use super::{catalogue::Catalogue, reading::Reading};
use crate::domain::error::KmsError;

/// One command.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Its words.
    pub words: &'static str,
    /// How it is typed, after the program's name.
    pub usage: &'static str,
    /// What it does.
    pub help: &'static str,
}

/// A command of one keeper, such as `local init`. The first of its words is the keeper's name.
#[derive(Clone, Copy, Debug)]
pub struct KeeperCommand {
    /// Its words, its usage and its help.
    pub command: Command,
    /// Reads its settings. Returns the work to do, or `None` where something is wrong, with every
    /// error noted in the reading.
    pub read: fn(&mut Reading<'_>) -> Option<Work>,
}

/// The work of a keeper's command. It may block. It returns the text to print.
pub type Work = Box<dyn FnOnce() -> Result<String, KmsError>>;

const fn command(words: &'static str, usage: &'static str, help: &'static str) -> Command {
    Command { words, usage, help }
}

/// The commands of every program.
const COMMANDS: [Command; 3] = [
    command("serve", "[serve] [FLAGS]", "serve kube-apiserver on a Unix socket"),
    command("check", "check [FLAGS]", "tell what is right and what is wrong with those flags"),
    command("policy", "policy [FLAGS]", "print what the role must be granted on the key"),
];

/// The command of programs that have the embedded keeper.
const DEV: Command = command("dev", "dev", "try it: embedded keeper, no server, no configuration");

/// What vault-kube-kms is.
pub const ABOUT: &str =
    "A Kubernetes KMS v2 provider whose key stays in Vault's or OpenBao's Transit engine.";

/// Returns the commands of the program that `catalogue` is of, those of its keepers last.
#[must_use]
pub fn commands(catalogue: &Catalogue) -> Vec<Command> {
    let dev = catalogue.has("local").then_some(DEV);
    let of_keepers = catalogue.keeper_commands().map(|of_keeper| of_keeper.command);
    COMMANDS.into_iter().chain(dev).chain(of_keepers).collect()
}

/// The help of the program that `catalogue` is of: what it is, commands, then flags.
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
