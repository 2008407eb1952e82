//! What is wrong with the configuration.

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
    /// Nowhere: it is missing, or its default is at fault.
    Nowhere,
}

impl Origin {
    /// Which of two values wins: flags over variables over the file.
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

/// One thing that is wrong: which flag, where it came from, and the cause with its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The flag's name, without dashes.
    pub flag: String,
    /// Where its value came from.
    pub origin: Origin,
    /// What is wrong, and what to do about it.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{} ({}): {}", self.flag, self.origin, self.problem)
    }
}
