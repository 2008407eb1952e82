//! Every command there is, for the help and what else is made of it.

use std::fmt::Write as _;

use super::catalogue::Catalogue;

/// One command.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Its words.
    pub words: &'static str,
    /// How it is typed, after the program's name.
    pub usage: &'static str,
    /// What it does.
    pub help: &'static str,
    /// The keeper without which it does not exist; empty for those of every program.
    pub keeper: &'static str,
}

const fn command(
    keeper: &'static str,
    words: &'static str,
    usage: &'static str,
    help: &'static str,
) -> Command {
    Command { words, usage, help, keeper }
}

/// All commands.
pub const COMMANDS: &[Command] = &[
    command("", "serve", "[serve] [FLAGS]", "serve kube-apiserver on a Unix socket"),
    command("", "check", "check [FLAGS]", "tell what is right and what is wrong with those flags"),
    command("", "policy", "policy [FLAGS]", "print what the role must be granted on the key"),
    command("local", "dev", "dev", "try it: embedded keeper, no server, no configuration"),
    command("local", "local init", "local init [FLAGS]", "make the embedded keeper's key file"),
    command("local", "local rotate", "local rotate [FLAGS]", "add a version to it"),
];

/// What vault-kube-kms is.
pub const ABOUT: &str =
    "A Kubernetes KMS v2 provider whose key stays in Vault's or OpenBao's Transit engine.";

/// The help of the program that `catalogue` is of: what it is, commands, then flags.
#[must_use]
pub fn help(catalogue: &Catalogue, about: &str) -> String {
    let program = catalogue.program();
    let mut text = format!("{about}\n\nUsage:\n");
    for Command { usage, help, .. } in
        COMMANDS.iter().filter(|command| command.keeper.is_empty() || catalogue.has(command.keeper))
    {
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
