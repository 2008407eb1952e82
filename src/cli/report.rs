//! Formats the findings of `check`.

use serde_json::{Value, json};

use crate::ports::finding::{Area, Finding, Report};

/// Returns one line for each finding.
pub(super) fn text(report: &Report) -> String {
    let line = |finding: &Finding| {
        format!("{}  {:13}  {finding}", finding.verdict.as_str(), finding.area.as_str())
    };
    let mut lines: Vec<_> = report.sorted().into_iter().map(line).collect();
    if !report.unchecked().is_empty() {
        let areas: Vec<_> = report.unchecked().iter().map(|area| area.as_str()).collect();
        lines.push(format!("not checked, because of the above: {}", areas.join(", ")));
    }
    lines.join("\n")
}

/// Returns the findings as JSON.
pub(super) fn json(report: &Report) -> Value {
    let findings = report.sorted().into_iter().map(|finding| {
        json!({
            "area": finding.area.as_str(),
            "verdict": finding.verdict.as_str(),
            "text": finding.text,
            "remedy": finding.remedy,
        })
    });
    json!({
        "verdict": report.worst().as_str(),
        "findings": findings.collect::<Vec<_>>(),
        "unchecked": report.unchecked().iter().copied().map(Area::as_str).collect::<Vec<_>>(),
    })
}
