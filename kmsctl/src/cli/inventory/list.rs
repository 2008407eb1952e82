//! Prints the objects themselves, one in a line, while they are read.

use std::io::{self, BufWriter, Stdout, Write as _};

use clap::{ValueEnum, builder::PossibleValue};
use serde::Serialize;

use crate::cli::outcome::written;
use crate::domain::{
    place::Place,
    problem::Problem,
    stored::Stored,
    tally::{Group, State, shown},
};

/// Which objects are listed: those in a state, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed(Option<State>);

impl ValueEnum for Listed {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self(None),
            Self(Some(State::Ours)),
            Self(Some(State::OtherPlugin)),
            Self(Some(State::OtherProvider)),
            Self(Some(State::Clear)),
            Self(Some(State::Unreadable)),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.map_or("all", State::name)))
    }
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    object: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    provider: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    key_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    mod_revision: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

/// Writes the lines to standard output.
#[derive(Debug)]
pub(super) struct List {
    listed: Listed,
    is_json: bool,
    /// `None` after an error, such as when the reader has closed the pipe, as `head` does.
    out: Option<BufWriter<Stdout>>,
    done: io::Result<()>,
}

impl List {
    pub(super) fn new(listed: Listed, is_json: bool) -> Self {
        Self { listed, is_json, out: Some(BufWriter::new(io::stdout())), done: Ok(()) }
    }

    /// Writes the line of an object, if it is to be listed.
    pub(super) fn add(&mut self, key: &[u8], prefix: &str, stored: &Stored<'_>, revision: i64) {
        let (group, why) = Group::of(stored);
        let Some(out) =
            self.out.as_mut().filter(|_| self.listed.0.is_none_or(|s| s == group.state))
        else {
            return;
        };
        let object = shown(key, Place::of(key, prefix));
        let line = line(&object, &group, why.as_deref(), revision, self.is_json);
        if let Err(error) = writeln!(out, "{line}") {
            self.done = Err(error);
            self.out = None;
        }
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When not every line could be written, unless the reader has closed the pipe.
    pub(super) fn end(mut self) -> Result<(), Problem> {
        written(self.out.as_mut().map_or(self.done, io::Write::flush))
    }
}

fn line(object: &str, group: &Group, why: Option<&str>, revision: i64, is_json: bool) -> String {
    let version = group.claim.as_ref().map(|claim| claim.version.get());
    if is_json {
        let line = Line {
            object,
            state: group.state.name(),
            provider: &group.provider,
            key_id: &group.key_id,
            version,
            mod_revision: revision,
            why,
        };
        return serde_json::to_string(&line).unwrap_or_default();
    }
    let escaped = |text: &str| text.escape_default().to_string();
    let mut words = vec![group.state.name().to_owned(), object.to_owned()];
    words.extend(
        [&group.provider, &group.key_id].into_iter().filter(|w| !w.is_empty()).map(|w| escaped(w)),
    );
    words.extend(version.map(|version| format!("version {version}")));
    words.extend(why.map(escaped));
    words.join("\t")
}
