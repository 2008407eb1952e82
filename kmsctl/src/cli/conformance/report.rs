//! The report: text for people, JSON, and `JUnit`.

use std::{fmt::Write as _, time::Duration};

use maud::{Markup, PreEscaped, html};
use serde::Serialize;

use crate::domain::conformance::{Opened, Record, Severity, Trial, Verdict, percentile, rules};

/// The judgement of a record.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The socket, as the operator gave it.
    socket: String,
    /// How many rules hold, are broken by severity, and could not be tried.
    summary: Summary,
    /// What the calls took.
    figures: Figures,
    /// All rules.
    rules: Vec<Line>,
}

#[derive(Debug, Default, Serialize)]
struct Summary {
    hold: usize,
    errors: usize,
    warnings: usize,
    infos: usize,
    skipped: usize,
}

#[derive(Debug, Serialize)]
struct Line {
    id: &'static str,
    numbers: &'static [u8],
    title: &'static str,
    severity: Severity,
    source: &'static str,
    verdict: &'static str,
    evidence: String,
}

/// What the calls took. Durations are in milliseconds.
#[derive(Debug, Serialize)]
struct Figures {
    /// Until Status was ok, and a round trip worked.
    ready_ms: f64,
    status: Spread,
    encrypt: Spread,
    decrypt: Spread,
    storm: Storm,
}

#[derive(Debug, Serialize)]
struct Spread {
    calls: usize,
    p50_ms: f64,
    p99_ms: f64,
}

/// The unwraps of the storm.
#[derive(Debug, Serialize)]
struct Storm {
    #[serde(flatten)]
    spread: Spread,
    failed: usize,
    seconds: f64,
}

fn spread(took: &[Duration]) -> Spread {
    let milliseconds =
        |percent| percentile(took.to_vec(), percent).unwrap_or_default().as_secs_f64() * 1000.0;
    Spread { calls: took.len(), p50_ms: milliseconds(50), p99_ms: milliseconds(99) }
}

fn times(trials: &[Trial]) -> Vec<Duration> {
    trials.iter().map(|trial| trial.took).collect()
}

impl Report {
    /// Judges `record` of the plugin behind `socket`.
    pub(super) fn of(record: &Record, socket: String) -> Self {
        let mut summary = Summary::default();
        let judged = rules().map(|rule| {
            let (verdict, evidence, count) = match ((rule.judge)(record), rule.severity) {
                (Verdict::Holds(text), _) => ("holds", text, &mut summary.hold),
                (Verdict::Skipped(text), _) => ("skipped", text, &mut summary.skipped),
                (Verdict::Broken(text), Severity::Error) => ("broken", text, &mut summary.errors),
                (Verdict::Broken(text), Severity::Warning) => {
                    ("broken", text, &mut summary.warnings)
                }
                (Verdict::Broken(text), Severity::Info) => ("broken", text, &mut summary.infos),
            };
            *count = count.saturating_add(1);
            Line {
                id: rule.id,
                numbers: rule.numbers,
                title: rule.title,
                severity: rule.severity,
                source: rule.source,
                verdict,
                evidence,
            }
        });
        let rules = judged.collect();
        let failed = record.storm.iter().filter(|trial| trial.opened != Opened::Same).count();
        let figures = Figures {
            ready_ms: record.preflight.took.as_secs_f64() * 1000.0,
            status: spread(&record.statuses.iter().map(|call| call.took).collect::<Vec<_>>()),
            encrypt: spread(&record.pairs.iter().map(|pair| pair.wrap.took).collect::<Vec<_>>()),
            decrypt: spread(&times(&record.reads)),
            storm: Storm {
                spread: spread(&times(&record.storm)),
                failed,
                seconds: record.storm_took.as_secs_f64(),
            },
        };
        Self { socket, summary, figures, rules }
    }

    /// Returns whether no rule of severity `error` is broken.
    pub(super) fn is_good(&self) -> bool {
        self.summary.errors == 0
    }

    /// Returns the report for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.rules {
            let verdict = match (line.verdict, line.severity) {
                ("broken", severity) => severity.name().to_uppercase(),
                (verdict, _) => verdict.to_owned(),
            };
            let _infallible = writeln!(text, "{verdict:8} {}: {}", line.id, line.evidence);
            if line.verdict == "broken" {
                let _infallible = writeln!(text, "{:8} rule: {}", "", line.title);
                let _infallible = writeln!(text, "{:8} source: {}", "", line.source);
            }
        }
        let Summary { hold, errors, warnings, infos, skipped } = self.summary;
        let _infallible = write!(
            text,
            "{}: {hold} rules hold; broken: {errors} errors, {warnings} warnings, {infos} info; {skipped} not tried",
            self.socket
        );
        text
    }

    /// Returns the report as XML of `JUnit`. Only a broken rule of severity `error` is a failure there.
    pub(super) fn junit(&self) -> String {
        let Summary { errors, skipped, .. } = self.summary;
        let suite: Markup = html! {
            (PreEscaped("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"))
            testsuites {
                testsuite name={ "KMS v2 of " (self.socket) } tests=(self.rules.len()) failures=(errors) errors="0" skipped=(skipped) {
                    @for line in &self.rules {
                        testcase classname="kms-v2" name=(line.id) {
                            @let text = format!("{}; source: {}", line.evidence, line.source);
                            @match (line.verdict, line.severity) {
                                ("broken", Severity::Error) => failure message=(line.title) type="error" { (text) },
                                ("skipped", _) => skipped message=(line.evidence) {},
                                ("broken", severity) => system-out { (severity.name()) ": " (line.title) ": " (text) },
                                _ => system-out { (line.evidence) },
                            }
                        }
                    }
                }
            }
        };
        suite.into_string()
    }
}
