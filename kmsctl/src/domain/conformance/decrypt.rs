//! Rules for Decrypt.

use std::time::Duration;

use super::{
    Opened, Record, Rule, Severity, Verdict,
    check::{Milliseconds, all_refused, all_same, broken, holds, percentile, quoted, skipped},
};

/// The target of `kms-provider.md` for Decrypt.
const TARGET: Duration = Duration::from_millis(10);

/// The longest text of an error that OpenShift keeps.
const TEXT_MAX: usize = 1024;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "decrypt-exact",
        numbers: &[28],
        title: "Decrypt returns exactly what was wrapped, each time, in any order",
        severity: Severity::Error,
        source: "envelope.go; api.proto",
        judge: |record| all_same(&record.reads),
    },
    Rule {
        id: "decrypt-never-wrong",
        numbers: &[32, 33],
        title: "A changed request never returns other bytes without an error: the API server caches them for a day",
        severity: Severity::Error,
        source: "cache.go; envelope.go",
        judge: |record| match record.changed().find(|trial| trial.opened == Opened::Other) {
            Some(trial) => broken(format!("{} returned other bytes", trial.what)),
            None if record.wrapped().is_none() => skipped("nothing could be wrapped before"),
            None => holds(format!("{} changed requests", record.changed().count())),
        },
    },
    Rule {
        id: "decrypt-ciphertext-bound",
        numbers: &[32],
        title: "A changed, shortened or extended ciphertext is refused",
        severity: Severity::Error,
        source: "KEP-3299",
        judge: |record| all_refused(&record.ciphertexts),
    },
    Rule {
        id: "decrypt-empty",
        numbers: &[37],
        title: "An empty request, and an empty ciphertext, are refused",
        severity: Severity::Error,
        source: "api.proto (the ciphertext is not empty)",
        judge: |record| all_refused(&record.empty),
    },
    Rule {
        id: "decrypt-key-id-bound",
        numbers: &[30, 34],
        title: "A key id that the plugin did not give for this ciphertext is refused",
        severity: Severity::Warning,
        source: "kms-provider.md; KEP-3299",
        judge: |record| all_refused(&record.key_ids),
    },
    Rule {
        id: "decrypt-annotations-bound",
        numbers: &[35, 36],
        title: "Changed, added or missing annotations are refused",
        severity: Severity::Warning,
        source: "KEP-3299; kubernetes/kms internal/plugins/_mock",
        judge: |record| all_refused(&record.annotations),
    },
    Rule {
        id: "decrypt-limits",
        numbers: &[38],
        title: "Requests at and over the limits of the API server have an answer in time, and the plugin goes on",
        severity: Severity::Warning,
        source: "envelope.go",
        judge: limits,
    },
    Rule {
        id: "decrypt-equal",
        numbers: &[40],
        title: "64 equal calls at once have the same, right answer",
        severity: Severity::Error,
        source: "envelope.go (no single flight)",
        judge: |record| all_same(&record.equal),
    },
    Rule {
        id: "decrypt-fast",
        numbers: &[],
        title: "Decrypt takes less than 10 ms in the middle",
        severity: Severity::Info,
        source: "kms-provider.md",
        judge: |record| match percentile(record.reads.iter().map(|read| read.took).collect(), 50) {
            Some(middle) if middle > TARGET => broken(format!("p50 {}", Milliseconds(middle))),
            Some(middle) => holds(format!("p50 {}", Milliseconds(middle))),
            None => skipped("no call was made"),
        },
    },
    Rule {
        id: "error-codes",
        numbers: &[],
        title: "A refused request has a code other than Unknown and Internal: the metrics of the API server show it",
        severity: Severity::Info,
        source: "grpc_service.go (the label grpc_status_code)",
        judge: |record| {
            refused(record, |code, _| {
                ["Unknown", "Internal"].contains(&code).then(|| format!("the code is {code}"))
            })
        },
    },
    Rule {
        id: "error-texts",
        numbers: &[17, 27, 73],
        title: "The text of an error is one line of at most 1024 bytes: users and logs see it",
        severity: Severity::Warning,
        source: "store.go; checker.go",
        judge: |record| {
            refused(record, |_, text| {
                let bad = text.contains(char::is_control) || text.len() > TEXT_MAX;
                bad.then(|| format!("a text of {} bytes: {}", text.len(), quoted(text)))
            })
        },
    },
];

fn limits(record: &Record) -> Verdict {
    let silent = record.large.iter().find_map(|trial| match &trial.opened {
        Opened::Refused(refusal) if refusal.is_silence() => Some((&trial.what, refusal)),
        _ => None,
    });
    match (silent, record.alive.get("large requests").map(|call| &call.answer)) {
        (Some((what, refusal)), _) => broken(format!("{what}: {refusal}")),
        (None, Some(Err(refusal))) => broken(format!("Status after it: {refusal}")),
        (None, Some(Ok(_))) if !record.large.is_empty() => {
            holds(format!("{} requests have an answer", record.large.len()))
        }
        _ => skipped("nothing could be wrapped before"),
    }
}

/// Judges the code and the text of each refused request.
fn refused(record: &Record, fault: fn(&str, &str) -> Option<String>) -> Verdict {
    let mut seen = 0_usize;
    for trial in record.changed() {
        let Opened::Refused(refusal) = &trial.opened else { continue };
        if let Some(fault) = fault(&refusal.code, &refusal.text) {
            return broken(format!("{}: {fault}", trial.what));
        }
        seen = seen.saturating_add(1);
    }
    if seen == 0 { skipped("nothing was refused") } else { holds(format!("{seen} errors")) }
}
