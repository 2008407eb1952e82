//! Errors of the configuration.

use std::fmt;

/// How many characters at the beginning and at the end of a long error are kept.
const KEPT: usize = 300;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// This environment variable.
    Variable(String),
    /// This file (`--config`).
    File(String),
    /// No source: the value is missing, or the default is wrong.
    Nowhere,
}

impl Origin {
    /// Returns the rank of the source. The higher rank wins: flags over variables over the file.
    #[must_use]
    pub const fn rank(&self) -> u8 {
        match self {
            Self::Flag => 3,
            Self::Variable(_) => 2,
            Self::File(_) => 1,
            Self::Nowhere => 0,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("given on the command line"),
            Self::Variable(name) => write!(f, "given by the variable {name}"),
            Self::File(path) => write!(f, "given in {path}"),
            Self::Nowhere => f.write_str("not given"),
        }
    }
}

/// One error: the flag, the origin of its value, and the cause with its remedy. As a text, it has at
/// most about 600 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The flag's name, without dashes.
    pub flag: String,
    /// Where the value came from.
    pub origin: Origin,
    /// What is wrong, and what to do about it.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&format!("--{} ({}): {}", self.flag, self.origin, self.problem)))
    }
}

/// Returns the text without control characters. Cuts the middle out of a long one: what is wrong is
/// at its beginning, and the remedy at its end.
fn one_line(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    let count = text.chars().count();
    if count <= 2 * KEPT {
        return text;
    }
    let first = text.chars().take(KEPT);
    let last = text.chars().skip(count - KEPT);
    first.chain(" [...] ".chars()).chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_is_one_line_with_its_beginning_and_its_remedy() {
        let problem = format!("{} is not a number; write a port", "\u{e9}\n\u{1b}".repeat(2_000));
        let error = ConfigError { flag: "health-port".to_owned(), origin: Origin::Flag, problem };
        let text = error.to_string();
        assert!(text.starts_with("--health-port (given on the command line): "), "{text}");
        assert!(text.ends_with("is not a number; write a port"), "{text}");
        assert!(!text.contains(char::is_control), "{text}");
        assert!(text.chars().count() < 620, "{}", text.len());
    }
}
