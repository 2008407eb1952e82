//! Rules for a restart of the plugin. They need the operator's command for it.

use std::time::Duration;

use super::{
    Record, Restarted, Rule, Severity, Verdict,
    check::{all_same, broken, holds, quoted, skipped},
};

/// A plugin that is away for longer risks writes of the API server: its next connection may come
/// late.
const SOON: Duration = Duration::from_mins(1);

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "restart-key-id",
        numbers: &[14, 50],
        title: "After a restart, Status has the same key id",
        severity: Severity::Error,
        source: "KEP-3299",
        judge: |record| {
            of(record, |restarted| match (&restarted.hook, &restarted.ids) {
                (Err(error), _) => broken(format!("the command failed: {error}")),
                (Ok(()), (_, None)) => broken("Status was not ok after it"),
                (Ok(()), (old, Some(new))) if old == new => holds(quoted(new)),
                (Ok(()), (old, Some(new))) => {
                    broken(format!("it was {}, and is {}", quoted(old), quoted(new)))
                }
            })
        },
    },
    Rule {
        id: "restart-data",
        numbers: &[28],
        title: "After a restart, what was wrapped before it is opened",
        severity: Severity::Error,
        source: "KEP-3299",
        judge: |record| of(record, |restarted| all_same(&restarted.reads)),
    },
    Rule {
        id: "restart-soon",
        numbers: &[43, 45, 50],
        title: "After a restart, Status is ok within 60 s: the API server writes for 3 minutes without it",
        severity: Severity::Warning,
        source: "config.go (kmsv2PluginWriteDEKSourceMaxTTL)",
        judge: |record| {
            of(record, |restarted| match restarted.after {
                None => broken("Status was not ok after it"),
                Some(after) if after > SOON => {
                    broken(format!("after {:.1} s", after.as_secs_f64()))
                }
                Some(after) => holds(format!("after {:.1} s", after.as_secs_f64())),
            })
        },
    },
];

fn of(record: &Record, judge: fn(&Restarted) -> Verdict) -> Verdict {
    match &record.restarted {
        Some(restarted) => judge(restarted),
        None => skipped("give --restart"),
    }
}
