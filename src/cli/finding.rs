//! What was found out about an installation, line by line.

use std::fmt;

use serde_json::{Value, json};

use crate::domain::error::KmsError;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// As it should be.
    #[default]
    Pass,
    /// It works, and somebody should know of it.
    Warn,
    /// It does not work.
    Fail,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }

    /// 0, 1 or 2.
    pub(super) const fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Warn => 1,
            Self::Fail => 2,
        }
    }
}

/// What a finding is about, in the order of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Area {
    Configuration,
    Sandbox,
    Socket,
    Files,
    Connection,
    Login,
    Policy,
    Key,
    Binding,
    Clock,
}

impl Area {
    const fn as_str(self) -> &'static str {
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
pub(super) struct Finding {
    pub(super) area: Area,
    pub(super) verdict: Verdict,
    /// What is.
    pub(super) text: String,
    /// What to do about it; empty where nothing is.
    pub(super) remedy: String,
}

impl Finding {
    pub(super) fn pass(area: Area, text: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Pass, text: text.into(), remedy: String::new() }
    }

    pub(super) fn warn(area: Area, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Warn, text: text.into(), remedy: remedy.into() }
    }

    pub(super) fn fail(area: Area, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Fail, text: text.into(), remedy: remedy.into() }
    }

    /// A failure whose text ends with its remedy, behind a semicolon.
    pub(super) fn told(area: Area, text: &str) -> Self {
        let (text, remedy) = text.split_once("; ").unwrap_or((text, ""));
        Self::fail(area, text, remedy)
    }

    /// A failure with the code that logs and metrics know it by.
    pub(super) fn failed(area: Area, error: &KmsError) -> Self {
        Self::fail(area, format!("{}: {}", error.code(), error.cause()), error.remedy())
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
pub(super) struct Report {
    findings: Vec<Finding>,
    unchecked: Vec<Area>,
}

impl Report {
    pub(super) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// These could not be looked at, because of what was found before.
    pub(super) fn leave_out(&mut self, areas: &[Area]) {
        self.unchecked.extend_from_slice(areas);
    }

    /// Whether everything in `area` passes so far.
    pub(super) fn passes(&self, area: Area) -> bool {
        self.findings.iter().all(|f| f.area != area || f.verdict == Verdict::Pass)
    }

    /// The worst verdict.
    pub(super) fn worst(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or_default()
    }

    fn sorted(&self) -> Vec<&Finding> {
        let mut findings: Vec<_> = self.findings.iter().collect();
        findings.sort_by_key(|finding| finding.area);
        findings
    }

    /// A line for each finding.
    pub(super) fn text(&self) -> String {
        let mut lines: Vec<_> = self
            .sorted()
            .into_iter()
            .map(|f| format!("{}  {:13}  {f}", f.verdict.as_str(), f.area.as_str()))
            .collect();
        if !self.unchecked.is_empty() {
            let areas: Vec<_> = self.unchecked.iter().map(|area| area.as_str()).collect();
            lines.push(format!("not checked, because of the above: {}", areas.join(", ")));
        }
        lines.join("\n")
    }

    /// The same for machines.
    pub(super) fn json(&self) -> Value {
        let findings = self.sorted().into_iter().map(|f| {
            json!({
                "area": f.area.as_str(),
                "verdict": f.verdict.as_str(),
                "text": f.text,
                "remedy": f.remedy,
            })
        });
        json!({
            "verdict": self.worst().as_str(),
            "findings": findings.collect::<Vec<_>>(),
            "unchecked": self.unchecked.iter().map(|area| area.as_str()).collect::<Vec<_>>(),
        })
    }
}
