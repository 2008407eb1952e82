//! Reads single values and collects their errors.

use std::{fmt::Display, net::IpAddr, time::Duration};

use http::Uri;

use super::{
    catalogue::Catalogue,
    error::{ConfigError, Origin},
    sources::Sources,
};
use crate::adapters::system::parsed_file::ParsedFile;

/// Reads values and collects errors.
#[derive(Debug)]
pub struct Reading<'a> {
    sources: &'a Sources,
    pub(in crate::config) errors: Vec<ConfigError>,
}

impl<'a> Reading<'a> {
    pub(in crate::config) fn new(sources: &'a Sources) -> Self {
        Self { sources, errors: sources.errors.clone() }
    }

    /// Returns the flags and keepers of the program.
    #[must_use]
    pub fn catalogue(&self) -> &'a Catalogue {
        self.sources.catalogue()
    }

    fn help_of(&self, name: &str) -> &'static str {
        let help = self.catalogue().find(name).map_or("", |flag| flag.help);
        help.split_once(" (required").map_or(help, |(what, _)| what)
    }

    /// Returns the rank of the source of `name` ([`Origin::rank`]). Returns `None` when no value is
    /// given or the value is empty, because templates write an empty text when they have no value.
    #[must_use]
    pub fn given(&self, name: &str) -> Option<u8> {
        let given = self.sources.get(name)?;
        given.values.iter().any(|value| !value.is_empty()).then(|| given.origin.rank())
    }

    /// Returns the text given for `name`, or its default. Returns an empty text without either.
    #[must_use]
    pub fn text(&self, name: &str) -> &'a str {
        let given = self.sources.get(name).and_then(|given| given.values.last());
        given.map_or_else(
            || self.catalogue().find(name).map_or("", |flag| flag.default),
            String::as_str,
        )
    }

    /// Returns all texts given for the repeatable flag `name`.
    #[must_use]
    pub fn texts(&self, name: &str) -> &'a [String] {
        self.sources.get(name).map_or(&[], |given| given.values.as_slice())
    }

    /// Adds an error for the flag `name`. `problem` says what is wrong and what to write.
    pub fn wrong(&mut self, name: &str, problem: impl Display) {
        let origin = self.sources.get(name).map_or(Origin::Nowhere, |given| given.origin.clone());
        let problem = problem.to_string();
        self.errors.push(ConfigError { flag: name.to_owned(), origin, problem });
    }

    /// Parses the value of `name`. On an error, adds it and returns `None`.
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

    /// Does the same as [`Reading::parsed`], but an empty value is an error.
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

    /// Reads the file that `name` names, of at most `most` bytes, and parses its text. An empty
    /// value is an error.
    pub fn file<T: Send + Sync>(
        &mut self,
        name: &str,
        most: u64,
        parse: fn(&str) -> Result<T, String>,
    ) -> Option<ParsedFile<T>> {
        self.required(name, |path| ParsedFile::open(path.into(), most, parse))
    }

    /// Reads the URL of a server that receives secrets: `https`, or `http` with a loopback address.
    /// `Some(None)` means that the value is empty.
    pub fn url(&mut self, name: &str) -> Option<Option<Uri>> {
        self.parsed(name, |text| match text {
            "" => Ok(None),
            _ => private_url(text).map(Some),
        })
    }

    /// Reads `true` or `false`, in the spellings of Go's `strconv.ParseBool`.
    pub fn boolean(&mut self, name: &str) -> Option<bool> {
        self.parsed(name, |text| match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(format!("{text:?} is not a valid truth value; write true or false")),
        })
    }

    /// Reads a duration in the form of Go, such as `1m30s`. The limits `least` and `most` are
    /// allowed.
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

    /// Reads a port. `Some(None)` means that the port is switched off: the number is 0 or less.
    pub fn port(&mut self, name: &str) -> Option<Option<u16>> {
        self.parsed(name, |text| {
            let number: i64 = text.parse().map_err(|_no_number| {
                format!("{text:?} is not a valid port; write a number, or 0 to switch it off")
            })?;
            if number <= 0 {
                return Ok(None);
            }
            u16::try_from(number)
                .map(Some)
                .map_err(|_range| format!("{number} is not a valid port; write at most 65535"))
        })
    }
}

/// Parses a URL without credentials, query and fragment. The error does not repeat `text`, which may
/// contain a password.
fn private_url(text: &str) -> Result<Uri, String> {
    let is_loopback = |host: &str| {
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        address.is_ok_and(|address| address.is_loopback())
    };
    let is_private = |uri: &Uri| match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => {
            let host = authority.host();
            let has_port = authority.as_str().len() > host.len();
            !host.is_empty()
                && (!has_port || uri.port_u16().is_some_and(|port| port != 0))
                && (scheme == "https" || scheme == "http" && is_loopback(host))
        }
        _ => false,
    };
    let uri = text.parse().ok().filter(|_| !text.contains(['@', '?', '#']));
    uri.filter(is_private).ok_or_else(|| {
        "it is not a valid URL; write https://HOST or https://HOST:PORT (http:// only with a loopback address)"
            .to_owned()
    })
}

/// Reads a duration in the form of Go, without a sign, such as `1m30s` or `2.5s`. Rejects units
/// above the hour and blanks, as Go does. The parser itself would accept them.
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
    fn accepts_urls_over_which_a_secret_may_go() {
        for text in [
            "https://kms.example",
            "https://kms.example:8443/path",
            "https://10.0.0.1",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
        ] {
            assert!(private_url(text).is_ok(), "{text}");
        }
        for text in [
            "kms.example",
            "https://",
            "https://kms.example:0",
            "https://kms.example:port",
            "https://kms.example:65536",
            "https://user:password@kms.example",
            "https://kms.example?query",
            "https://kms.example/#fragment",
            "ftp://kms.example",
            "http://10.0.0.1",
            "http://localhost",
            "http://127.0.0.1.example",
        ] {
            let problem = private_url(text).unwrap_err();
            assert!(!problem.contains("password"), "{text}: {problem}");
        }
    }

    #[test]
    fn reads_durations_as_go_does() {
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
