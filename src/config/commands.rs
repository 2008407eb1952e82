//! Every command there is, for the help and what else is made of it.

use std::fmt::Write as _;

use super::flags;

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

const fn command(words: &'static str, usage: &'static str, help: &'static str) -> Command {
    Command { words, usage, help }
}

/// All commands.
pub const COMMANDS: &[Command] = &[
    command("serve", "[serve] [FLAGS]", "serve kube-apiserver on a Unix socket"),
    command("check", "check [FLAGS]", "tell what is right and what is wrong with those flags"),
    command("policy", "policy [FLAGS]", "print what the role must be granted on the key"),
    command("dev", "dev", "try it: embedded keeper, no server, no configuration"),
    command("local init", "local init [FLAGS]", "make the embedded keeper's key file"),
    command("local rotate", "local rotate [FLAGS]", "add a version to it"),
];

/// What the program is.
pub const ABOUT: &str =
    "A Kubernetes KMS v2 provider whose key stays in Vault's or OpenBao's Transit engine.";

/// The help: commands, then flags.
#[must_use]
pub fn help() -> String {
    let mut text = format!("{ABOUT}\n\nUsage:\n");
    for Command { usage, help, .. } in COMMANDS {
        let _infallible = writeln!(text, "  vault-kube-kms {usage:<22}{help}");
    }
    text.push_str(
        "  vault-kube-kms --help | --version\n\n\
         Flags take one dash or two. Each has a variable, VAULT_KUBE_KMS_ and its name in capitals\n\
         with underscores, and a key in the --config file; flags win over variables over the file.\n",
    );
    text + &flags::help()
}
