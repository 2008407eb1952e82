//! Reading single values out of what was given, noting what is wrong with each.

use std::{fmt::Display, time::Duration};

use super::{
    catalogue::Catalogue,
    error::{ConfigError, Origin},
    sources::Sources,
};

/// Reads values and gathers errors.
#[derive(Debug)]
pub struct Reading<'a> {
    sources: &'a Sources,
    pub(in crate::config) errors: Vec<ConfigError>,
}

impl<'a> Reading<'a> {
    pub(in crate::config) fn new(sources: &'a Sources) -> Self {
        Self { sources, errors: sources.errors.clone() }
    }

    /// What the program can be told.
    #[must_use]
    pub fn catalogue(&self) -> &'a Catalogue {
        self.sources.catalogue()
    }

    fn help_of(&self, name: &str) -> &'static str {
        let help = self.catalogue().find(name).map_or("", |flag| flag.help);
        help.split_once(" (required").map_or(help, |(what, _)| what)
    }

    /// How strongly a value for `name` was given; `None` when it was not, or is empty, as
    /// templates leave what they have no value for.
    #[must_use]
    pub fn given(&self, name: &str) -> Option<u8> {
        let given = self.sources.get(name)?;
        given.values.iter().any(|value| !value.is_empty()).then(|| given.origin.rank())
    }

    /// The text given for `name`, or its default; empty when there is neither.
    #[must_use]
    pub fn text(&self, name: &str) -> &'a str {
        let given = self.sources.get(name).and_then(|given| given.values.last());
        given.map_or_else(
            || self.catalogue().find(name).map_or("", |flag| flag.default),
            String::as_str,
        )
    }

    /// All texts given for the repeatable `name`.
    #[must_use]
    pub fn texts(&self, name: &str) -> &'a [String] {
        self.sources.get(name).map_or(&[], |given| given.values.as_slice())
    }

    /// Notes that something is wrong with `name`.
    pub fn wrong(&mut self, name: &str, problem: impl Display) {
        let origin = self.sources.get(name).map_or(Origin::Nowhere, |given| given.origin.clone());
        let problem = problem.to_string();
        self.errors.push(ConfigError { flag: name.to_owned(), origin, problem });
    }

    /// The value of `name`, or `None` with the error noted.
    pub fn parsed<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(self.text(name)) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.wrong(name, problem);
                None
            }
        }
    }

    /// The same, for a flag that must be given.
    pub fn required<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if self.text(name).is_empty() {
            self.wrong(name, format!("it is required: {}", self.help_of(name)));
            return None;
        }
        self.parsed(name, parse)
    }

    /// `true` or `false`, in the forms that Go knows.
    pub fn boolean(&mut self, name: &str) -> Option<bool> {
        self.parsed(name, |text| match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        })
    }

    /// A duration in Go's form, such as `1m30s`, from `least` to `most`.
    pub fn duration(&mut self, name: &str, least: Duration, most: Duration) -> Option<Duration> {
        self.parsed(name, |text| {
            let value = go_duration(text)?;
            if value < least || value > most {
                return Err(format!(
                    "{text} is out of range; {} ms to {} s are allowed",
                    least.as_millis(),
                    most.as_secs()
                ));
            }
            Ok(value)
        })
    }

    /// A port; `None` inside when it is switched off.
    pub fn port(&mut self, name: &str) -> Option<Option<u16>> {
        self.parsed(name, |text| {
            let number: i64 =
                text.parse().map_err(|_no_number| format!("{text:?} is no port number"))?;
            if number <= 0 {
                return Ok(None);
            }
            u16::try_from(number).map(Some).map_err(|_range| format!("{number} is above 65535"))
        })
    }
}

/// Reads a duration in Go's form, without sign, such as `1m30s` or `2.5s`. Units above the hour and
/// blanks, which the parser also knows, are refused as in Go.
fn go_duration(text: &str) -> Result<Duration, String> {
    let is_gos = text.chars().all(|c| c.is_ascii_digit() || ".numshµ".contains(c));
    let parsed = humantime::parse_duration(text).ok().filter(|_| is_gos);
    parsed.ok_or_else(|| {
        format!("{text:?} is not a valid duration; write for example 30s, 1m30s or 500ms")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("2.5s", 2_500),
            ("300ms", 300),
            ("1.5h", 5_400_000),
            ("1h0.5m", 3_630_000),
            ("1500us", 1),
            ("1000µs", 1),
            ("0s", 0),
            ("0", 0),
        ] {
            let read = go_duration(text).map(|read| read.as_millis());
            assert_eq!(read, Ok(millis), "{text}");
        }
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "+1s",
            "1x",
            "1s ",
            "1 s",
            "1m 30s",
            "1..5s",
            "1e9h",
            "1d",
            "1w",
            "1y",
            "1min",
            "1sec",
            "1hours",
            "99999999999999999h",
            "1.",
        ] {
            assert!(go_duration(text).is_err(), "{text:?}");
        }
    }
}
