//! The flags of one program: the flags that every program has, and the flags of its keepers.

use std::fmt::Write as _;

use super::{
    commands::KeeperCommand,
    flags::{COMMON, Flag, Group, SOCKET, Takes, flag},
    keepers::{self, Dev, KeeperKind},
};

/// The longest name, in bytes, for which a similar flag is searched. No flag is as long.
const NAME_MAX: usize = 64;

/// The flags and the keepers of a program.
#[derive(Clone, Debug)]
pub struct Catalogue {
    program: &'static str,
    prefix: String,
    kinds: Vec<KeeperKind>,
    groups: Vec<(&'static str, Vec<Flag>)>,
}

impl Catalogue {
    /// Returns the catalogue of `program` with the keepers `kinds`, the default first. The
    /// program's variables begin with its name in capitals. Call this once, because the names of
    /// the keepers are leaked: their memory is never freed.
    #[must_use]
    pub fn new(program: &'static str, kinds: Vec<KeeperKind>) -> Self {
        let names: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
        let default = names.first().copied().unwrap_or_default();
        let names: &'static [&'static str] = Vec::leak(names);
        let help = "Where the key is";
        let keeper = flag("keeper", Takes::OneOf("KEEPER", names), default, help);
        let owned = |group: &Group| (group.0, group.1.to_vec());
        let mut groups: Vec<_> = SOCKET.iter().map(owned).collect();
        groups.push(("Keeper", vec![keeper]));
        groups.extend(kinds.iter().flat_map(|kind| kind.flags).map(owned));
        groups.extend(COMMON.iter().map(owned));
        let prefix = program.replace('-', "_").to_uppercase();
        Self { program, prefix, kinds, groups }
    }

    /// Returns the catalogue of vault-kube-kms.
    #[must_use]
    pub fn built_in() -> Self {
        Self::new("vault-kube-kms", keepers::registry())
    }

    /// Returns the program's name.
    #[must_use]
    pub const fn program(&self) -> &'static str {
        self.program
    }

    /// Returns the prefix of the variables, without the underscore that follows it.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the keepers, the default first.
    #[must_use]
    pub fn kinds(&self) -> &[KeeperKind] {
        &self.kinds
    }

    /// Returns what the command `dev` serves: the first keeper with a key for that. Returns `None`
    /// when the program has no such command.
    #[must_use]
    pub fn dev(&self) -> Option<Dev> {
        self.kinds.iter().find_map(|kind| kind.dev)
    }

    /// Returns the commands of the keepers.
    pub fn keeper_commands(&self) -> impl Iterator<Item = &'static KeeperCommand> {
        self.kinds.iter().flat_map(|kind| kind.commands)
    }

    /// Returns all flags, grouped under the titles of the help.
    pub fn groups(&self) -> impl Iterator<Item = (&'static str, &[Flag])> {
        self.groups.iter().map(|(title, flags)| (*title, flags.as_slice()))
    }

    /// Returns all flags.
    pub fn all(&self) -> impl Iterator<Item = &Flag> {
        self.groups.iter().flat_map(|(_, flags)| flags)
    }

    /// Returns the flag named `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Flag> {
        self.all().find(|flag| flag.name == name)
    }

    /// Returns the flag whose name is closest to `name`: at most 3 edits away. Returns `None` for a
    /// name of more than 64 bytes.
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&'static str> {
        if name.len() > NAME_MAX {
            return None;
        }
        self.all()
            .map(|flag| (strsim::damerau_levenshtein(name, flag.name), flag.name))
            .min()
            .filter(|(distance, _)| *distance <= 3)
            .map(|(_, name)| name)
    }

    /// Returns the help on all flags, in groups, with defaults.
    #[must_use]
    pub fn help(&self) -> String {
        let mut text = String::new();
        for (title, flags) in self.groups() {
            let _infallible = write!(text, "\n{title}:\n");
            for flag in flags {
                let takes = match flag.takes {
                    Takes::Value(word) | Takes::Values(word) | Takes::OneOf(word, _) => {
                        format!(" {word}")
                    }
                    Takes::Bool => String::new(),
                };
                let one_of = match flag.takes {
                    Takes::OneOf(_, of) if flag.name == "keeper" => {
                        format!(": {}", of.join(" or "))
                    }
                    _ => String::new(),
                };
                let several =
                    if matches!(flag.takes, Takes::Values(_)) { " (repeatable)" } else { "" };
                let default = match flag.default {
                    "" => String::new(),
                    default => format!(" [{default}]"),
                };
                let Flag { name, help, .. } = flag;
                let _infallible =
                    write!(text, "  --{name}{takes}\n        {help}{one_of}{several}{default}\n");
            }
        }
        text
    }
}
