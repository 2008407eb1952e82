//! What is found out about an installation, line by line: by `check`, and at each start.

use std::{fmt, path::Path};

use crate::domain::error::KmsError;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    #[default]
    Pass,
    /// It works, and somebody should know of it.
    Warn,
    /// It does not work.
    Fail,
}

impl Verdict {
    /// The word that `check` prints.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }

    /// 0, 1 or 2.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Warn => 1,
            Self::Fail => 2,
        }
    }
}

/// What a finding is about, in the order of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// Flags, variables and the file.
    Configuration,
    /// What the process restricts itself to.
    Sandbox,
    /// The socket for the API server.
    Socket,
    /// Files that are read: credentials, authorities, keys.
    Files,
    /// The way to the keeper.
    Connection,
    /// The credentials, and what they give.
    Login,
    /// What the keeper lets this process do.
    Policy,
    /// The key and its settings.
    Key,
    /// Whether wraps are bound to their associated data.
    Binding,
    /// The clocks of this node and of the keeper.
    Clock,
}

impl Area {
    /// The word that `check` prints.
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

/// One thing that was found out.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What it is about.
    pub area: Area,
    /// How bad it is.
    pub verdict: Verdict,
    /// What is.
    pub text: String,
    /// What to do about it; empty where nothing is.
    pub remedy: String,
}

impl Finding {
    /// `text` is as it should be.
    #[must_use]
    pub fn pass(area: Area, text: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Pass, text: text.into(), remedy: String::new() }
    }

    /// `text` works, and an operator should know of it; `remedy` says what to do.
    #[must_use]
    pub fn warn(area: Area, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Warn, text: text.into(), remedy: remedy.into() }
    }

    /// `text` does not work; `remedy` says what to do.
    #[must_use]
    pub fn fail(area: Area, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Fail, text: text.into(), remedy: remedy.into() }
    }

    /// A failure whose text ends with its remedy, behind a semicolon.
    #[must_use]
    pub fn told(area: Area, text: &str) -> Self {
        let (text, remedy) = text.split_once("; ").unwrap_or((text, ""));
        Self::fail(area, text, remedy)
    }

    /// A failure with the code that logs and metrics know it by.
    #[must_use]
    pub fn failed(area: Area, error: &KmsError) -> Self {
        Self::fail(area, format!("{}: {}", error.code(), error.cause()), error.remedy())
    }

    /// What the permission bits `mode` say of a file, given by `flag`, that decides which server is
    /// believed: only its owner may write it.
    #[must_use]
    pub fn written_by_us_alone(flag: &str, path: &Path, mode: Option<u32>) -> Self {
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
    /// What is, and what to do about it.
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
    /// Adds one.
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// These could not be looked at, because of what was found before.
    pub fn leave_out(&mut self, areas: &[Area]) {
        self.unchecked.extend_from_slice(areas);
    }

    /// Whether everything in `area` passes so far.
    #[must_use]
    pub fn passes(&self, area: Area) -> bool {
        self.findings.iter().all(|f| f.area != area || f.verdict == Verdict::Pass)
    }

    /// The worst verdict.
    #[must_use]
    pub fn worst(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or_default()
    }

    /// The findings, in the order of their areas.
    #[must_use]
    pub fn sorted(&self) -> Vec<&Finding> {
        let mut findings: Vec<_> = self.findings.iter().collect();
        findings.sort_by_key(|finding| finding.area);
        findings
    }

    /// What could not be looked at.
    #[must_use]
    pub fn unchecked(&self) -> &[Area] {
        &self.unchecked
    }
}
