//! The findings about an installation. `check` prints them; the program logs some of them at its
//! start.

use std::{fmt, path::Path};

use crate::domain::error::KmsError;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The item is correct.
    #[default]
    Pass,
    /// The item works, but an operator should know of the finding.
    Warn,
    /// The item does not work.
    Fail,
}

impl Verdict {
    /// Returns the word that `check` prints.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }

    /// Returns the exit code of `check`: 0, 1 or 2.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Warn => 1,
            Self::Fail => 2,
        }
    }
}

/// The subject of a finding, in the order in which `check` prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// Flags, environment variables and the configuration file.
    Configuration,
    /// The restrictions that the process sets on itself.
    Sandbox,
    /// The socket for the API server.
    Socket,
    /// Files that the process reads: credentials, certificate authorities, keys.
    Files,
    /// The network connection to the keeper.
    Connection,
    /// The credentials, and the login with them.
    Login,
    /// The permissions of this process at the keeper.
    Policy,
    /// The key and its settings.
    Key,
    /// The binding of ciphertexts to their associated data.
    Binding,
    /// The clocks of this node and of the keeper.
    Clock,
}

impl Area {
    /// Returns the word that `check` prints.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Sandbox => "sandbox",
            Self::Socket => "socket",
            Self::Files => "files",
            Self::Connection => "connection",
            Self::Login => "login",
            Self::Policy => "policy",
            Self::Key => "key",
            Self::Binding => "binding",
            Self::Clock => "clock",
        }
    }
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The subject.
    pub area: Area,
    /// The severity.
    pub verdict: Verdict,
    /// The state that was found.
    pub text: String,
    /// What to do about it. Empty when nothing is to be done.
    pub remedy: String,
}

impl Finding {
    /// Makes a finding that `text` is correct.
    #[must_use]
    pub fn pass(area: Area, text: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Pass, text: text.into(), remedy: String::new() }
    }

    /// Makes a warning. `text` says what was found, `remedy` says what to do.
    #[must_use]
    pub fn warn(area: Area, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Warn, text: text.into(), remedy: remedy.into() }
    }

    /// Makes a failure. `text` says what does not work, `remedy` says what to do.
    #[must_use]
    pub fn fail(area: Area, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Fail, text: text.into(), remedy: remedy.into() }
    }

    /// Makes a failure from a text of the form `what failed; remedy`. The remedy is optional.
    #[must_use]
    pub fn from_text(area: Area, text: &str) -> Self {
        let (text, remedy) = text.split_once("; ").unwrap_or((text, ""));
        Self::fail(area, text, remedy)
    }

    /// Makes a failure from `error`. The text starts with the stable code.
    #[must_use]
    pub fn from_error(area: Area, error: &KmsError) -> Self {
        Self::fail(area, format!("{}: {}", error.code(), error.cause()), error.remedy())
    }

    /// Makes a finding about the permission bits `mode` of the file `path`, which `flag` names. The
    /// file decides which server is trusted, so only its owner should be able to write it.
    #[must_use]
    pub fn writable_by_owner_only(flag: &str, path: &Path, mode: Option<u32>) -> Self {
        let shown = path.display();
        match mode {
            Some(mode) if mode & 0o022 != 0 => Self::warn(
                Area::Files,
                format!("--{flag}: group or others can write {shown} ({mode:04o})"),
                "chmod it to 0644",
            ),
            _ => Self::pass(Area::Files, format!("--{flag}: {shown} is read")),
        }
    }
}

impl fmt::Display for Finding {
    /// Writes the text and then the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// All findings of a check.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
    unchecked: Vec<Area>,
}

impl Report {
    /// Adds a finding.
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Records that `areas` cannot be checked because of an earlier finding.
    pub fn add_unchecked(&mut self, areas: &[Area]) {
        self.unchecked.extend_from_slice(areas);
    }

    /// Returns whether all findings so far about `area` are [`Verdict::Pass`].
    #[must_use]
    pub fn passes(&self, area: Area) -> bool {
        self.findings.iter().all(|f| f.area != area || f.verdict == Verdict::Pass)
    }

    /// Returns the worst verdict.
    #[must_use]
    pub fn worst(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or_default()
    }

    /// Returns the findings in the order of their areas.
    #[must_use]
    pub fn sorted(&self) -> Vec<&Finding> {
        let mut findings: Vec<_> = self.findings.iter().collect();
        findings.sort_by_key(|finding| finding.area);
        findings
    }

    /// Returns the areas that could not be checked.
    #[must_use]
    pub fn unchecked(&self) -> &[Area] {
        &self.unchecked
    }
}
