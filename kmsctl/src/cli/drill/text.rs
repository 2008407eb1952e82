//! The report for a terminal.

use std::fmt::Write as _;

use crate::domain::{
    drill::FAILURES_MAX,
    drill_report::{Report, joined},
};

/// The number of failures that the text lists.
const LISTED: usize = 10;

pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _infallible = write(report, &mut text);
    // Names come from etcd. A control character must not reach the terminal.
    text.trim_end().replace(|c: char| c.is_control() && c != '\n', "?")
}

fn write(report: &Report, text: &mut String) -> std::fmt::Result {
    let (snapshot, totals, keeper) = (&report.snapshot, &report.totals, &report.keeper);
    writeln!(text, "snapshot  {}, {} bytes", snapshot.file, snapshot.size)?;
    writeln!(text, "          sha256 {}; digest of etcdctl {}", snapshot.sha256, snapshot.digest)?;
    if let Some(problem) = &snapshot.problem {
        writeln!(text, "          {problem}")?;
    }
    if !keeper.place.is_empty() {
        writeln!(text, "keeper    {}", keeper.place)?;
        if let Some(range) = keeper.range() {
            writeln!(text, "          unwraps with {range}")?;
        }
        writeln!(
            text,
            "objects   {} at revision {}: {} tested, {} of other providers, {} in clear",
            totals.objects,
            snapshot.revision.unwrap_or_default(),
            totals.tested,
            totals.other,
            totals.clear
        )?;
        writeln!(text, "seeds     {} of {} unwrapped", totals.seeds_unwrapped, totals.seeds)?;
        if !report.versions.needed.is_empty() {
            writeln!(text, "          of versions {}", joined(&report.versions.needed))?;
        }
        writeln!(text, "opened    {} ({})", totals.opened, report.sample)?;
    }
    for failure in report.failures.iter().take(LISTED) {
        writeln!(text, "{}: {}: {}", failure.reason, failure.object, failure.cause)?;
    }
    let more = report.failures.len().saturating_sub(LISTED);
    let more = u64::try_from(more).unwrap_or(u64::MAX).saturating_add(report.unlisted());
    if more > 0 {
        writeln!(text, "… and {more} more; --report lists the first {FAILURES_MAX}")?;
    }
    for limit in report.limits() {
        writeln!(text, "note      {limit}")?;
    }
    writeln!(text, "result    {}", report.sentence())
}
