//! The flags of one program: those that every program has, and those of its keepers.

use std::{fmt::Write as _, sync::Arc};

use super::{
    commands::KeeperCommand,
    flags::{COMMON, Flag, Group, SOCKET, Takes, flag},
    keepers::{self, KeeperKind},
};

/// What a program can be told, and which keepers it has.
#[derive(Clone, Debug)]
pub struct Catalogue {
    program: &'static str,
    prefix: String,
    kinds: Vec<Arc<dyn KeeperKind>>,
    groups: Vec<(&'static str, Vec<Flag>)>,
}

impl Catalogue {
    /// The catalogue of the program `program` with these keepers, the default first. Its variables begin
    /// with its name in capitals. To be made once: the names of the keepers are kept for ever.
    #[must_use]
    pub fn new(program: &'static str, kinds: Vec<Arc<dyn KeeperKind>>) -> Self {
        let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        let default = names.first().copied().unwrap_or_default();
        let names: &'static [&'static str] = Vec::leak(names);
        let help = "Who keeps the key";
        let keeper = flag("keeper", Takes::OneOf("KEEPER", names), default, help);
        let owned = |group: &Group| (group.0, group.1.to_vec());
        let mut groups: Vec<_> = SOCKET.iter().map(owned).collect();
        groups.push(("Keeper", vec![keeper]));
        groups.extend(kinds.iter().flat_map(|kind| kind.flags()).map(owned));
        groups.extend(COMMON.iter().map(owned));
        let prefix = program.replace('-', "_").to_uppercase();
        Self { program, prefix, kinds, groups }
    }

    /// The catalogue of vault-kube-kms.
    #[must_use]
    pub fn built_in() -> Self {
        Self::new("vault-kube-kms", keepers::registry())
    }

    /// The program's name.
    #[must_use]
    pub const fn program(&self) -> &'static str {
        self.program
    }

    /// What stands before the name of each variable, without the underscore behind it.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The keepers, the default first.
    #[must_use]
    pub fn kinds(&self) -> &[Arc<dyn KeeperKind>] {
        &self.kinds
    }

    /// Whether it has a keeper of that name.
    #[must_use]
    pub fn has(&self, keeper: &str) -> bool {
        self.kinds.iter().any(|kind| kind.name() == keeper)
    }

    /// The commands of the keepers.
    pub fn keeper_commands(&self) -> impl Iterator<Item = &'static KeeperCommand> {
        self.kinds.iter().flat_map(|kind| kind.commands())
    }

    /// All flags, under the titles of the help.
    pub fn groups(&self) -> impl Iterator<Item = (&'static str, &[Flag])> {
        self.groups.iter().map(|(title, flags)| (*title, flags.as_slice()))
    }

    /// All flags.
    pub fn all(&self) -> impl Iterator<Item = &Flag> {
        self.groups.iter().flat_map(|(_, flags)| flags)
    }

    /// The flag of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Flag> {
        self.all().find(|flag| flag.name == name)
    }

    /// The flag whose name comes closest to `name`, if any comes close.
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&'static str> {
        self.all()
            .map(|flag| (strsim::damerau_levenshtein(name, flag.name), flag.name))
            .min()
            .filter(|(distance, _)| *distance <= 3)
            .map(|(_, name)| name)
    }

    /// The help on all flags, in groups, with defaults.
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
