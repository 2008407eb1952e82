//! Errors of the configuration.

use std::fmt;

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

/// One error: the flag, the origin of its value, and the cause with its remedy.
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
        write!(f, "--{} ({}): {}", self.flag, self.origin, self.problem)
    }
}
