//! Rules for Status.

use std::{collections::BTreeSet, time::Duration};

use vault_kube_kms::domain::key_id::KEY_ID_MAX;

use super::answer::StatusAnswer;
use super::{
    Opened, Record, Rule, Severity, Verdict,
    check::{Milliseconds, broken, every, holds, percentile, quoted, skipped},
};

/// The value of `healthz` of a plugin that may be used.
pub const OK: &str = "ok";

/// Slower than this, a Status call delays the health probes of the API server.
const FAST: Duration = Duration::from_secs(1);

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "preflight",
        numbers: &[12, 20, 28],
        title: "OpenShift's preflight passes: Status is ok within 30 s, Encrypt hides 32 random bytes, and Decrypt returns them",
        severity: Severity::Error,
        source: "checker.go",
        judge: preflight,
    },
    Rule {
        id: "status-answers",
        numbers: &[1, 9, 12],
        title: "Each Status call has an answer within the timeout",
        severity: Severity::Error,
        source: "config.go; grpc_service.go",
        judge: |record| {
            let mut calls = record.statuses.iter().chain([&record.first]);
            match calls.find_map(|call| call.answer.as_ref().err()) {
                Some(refusal) => broken(refusal),
                None => holds(format!("{} calls", record.statuses.len().saturating_add(1))),
            }
        },
    },
    Rule {
        id: "status-version",
        numbers: &[12],
        title: "Status returns version \"v2\", or \"v2beta1\"",
        severity: Severity::Error,
        source: "config.go; KEP-3299",
        judge: |record| {
            every(&record.statuses, "answers have an accepted version", |answer: &StatusAnswer| {
                let accepted = ["v2", "v2beta1"].contains(&answer.version.as_str());
                (!accepted).then(|| format!("version is {}", quoted(&answer.version)))
            })
        },
    },
    Rule {
        id: "status-version-stable",
        numbers: &[13],
        title: "The version of Status never changes while an API server runs",
        severity: Severity::Error,
        source: "config.go",
        judge: |record| same(record, "version", |answer| &answer.version),
    },
    Rule {
        id: "status-healthz",
        numbers: &[12],
        title: "Status returns healthz \"ok\", and nothing else, when the plugin is healthy",
        severity: Severity::Error,
        source: "config.go; api.proto",
        judge: |record| {
            every(&record.statuses, "answers are ok", |answer| {
                (answer.healthz != OK).then(|| format!("healthz is {}", quoted(&answer.healthz)))
            })
        },
    },
    Rule {
        id: "status-healthz-without-key-id",
        numbers: &[17],
        title: "A plugin that is not healthy gives an error, and not a key id with another healthz: the API server goes on writing with it",
        severity: Severity::Warning,
        source: "config.go; kubernetes/kubernetes#138950",
        judge: unhealthy,
    },
    Rule {
        id: "status-key-id",
        numbers: &[12],
        title: "The key id of Status has 1 to 1024 bytes",
        severity: Severity::Error,
        source: "envelope.go (ValidateKeyID); kubernetes/kubernetes#115846",
        judge: |record| {
            every(&record.statuses, "answers have a valid key id", |answer| {
                let length = answer.key_id.len();
                let valid = (1..=KEY_ID_MAX).contains(&length);
                (!valid).then(|| format!("the key id has {length} bytes"))
            })
        },
    },
    Rule {
        id: "status-key-id-stable",
        numbers: &[14],
        title: "The key id of Status does not change without a rotation",
        severity: Severity::Error,
        source: "KEP-3299; kms-provider.md",
        judge: |record| same(record, "key id", |answer| &answer.key_id),
    },
    Rule {
        id: "status-key-id-printable",
        numbers: &[12, 25],
        title: "The key id is a name that logs can show: no control characters",
        severity: Severity::Warning,
        source: "api.proto (the key id is public)",
        judge: |record| {
            every(&record.statuses, "answers have a printable key id", |answer| {
                let control = answer.key_id.contains(char::is_control);
                control.then(|| format!("the key id is {}", quoted(&answer.key_id)))
            })
        },
    },
    Rule {
        id: "status-tells-the-truth",
        numbers: &[16],
        title: "Status is ok only while Encrypt and Decrypt work",
        severity: Severity::Error,
        source: "kms-provider.md; kubernetes-sigs/aws-encryption-provider#139",
        judge: truth,
    },
    Rule {
        id: "status-fast",
        numbers: &[17],
        title: "Status answers within 1 s: a slow one blocks the health probes of the API server",
        severity: Severity::Warning,
        source: "config.go",
        judge: |record| {
            let took = record.statuses.iter().map(|call| call.took).collect();
            match percentile(took, 99) {
                Some(slow) if slow > FAST => broken(format!("p99 {}", Milliseconds(slow))),
                Some(slow) => holds(format!("p99 {}", Milliseconds(slow))),
                None => skipped("no call was made"),
            }
        },
    },
];

fn preflight(record: &Record) -> Verdict {
    let preflight = &record.preflight;
    match (&preflight.status, &preflight.hidden, &preflight.opened) {
        (Err(refusal), ..) => broken(format!("Status: {refusal}")),
        (Ok(answer), ..) if answer.healthz != OK => {
            broken(format!("Status: healthz is {}", quoted(&answer.healthz)))
        }
        (_, Some(Err(refusal)), _) => broken(format!("Encrypt: {refusal}")),
        (_, Some(Ok(false)), _) => broken("Encrypt returned the plaintext"),
        (.., Some(Opened::Same)) => holds(format!("after {}", Milliseconds(preflight.took))),
        (.., Some(opened)) => broken(format!("Decrypt: {opened}")),
        (.., None) => skipped("no Decrypt was made"),
    }
}

fn unhealthy(record: &Record) -> Verdict {
    let seen = record.statuses.iter().chain(record.alive.values());
    let bad = seen
        .filter_map(|call| call.answer.as_ref().ok())
        .chain(record.preflight.status.as_ref())
        .find(|answer| answer.healthz != OK && !answer.key_id.is_empty());
    match bad {
        Some(answer) => broken(format!("healthz {} with a key id", quoted(&answer.healthz))),
        None => holds("no such answer was seen"),
    }
}

fn truth(record: &Record) -> Verdict {
    let healthy = record
        .statuses
        .iter()
        .any(|call| matches!(&call.answer, Ok(answer) if answer.healthz == OK));
    if !healthy {
        return skipped("Status was never ok");
    }
    let encrypt = record.pairs.iter().find_map(|pair| pair.wrap.answer.as_ref().err());
    let decrypt = record.reads.iter().find(|read| read.opened != Opened::Same);
    match (encrypt, decrypt) {
        (Some(refusal), _) => broken(format!("ok, and Encrypt: {refusal}")),
        (None, Some(read)) => broken(format!("ok, and Decrypt: {}", read.opened)),
        (None, None) => holds("Status is ok, and both work"),
    }
}

/// Requires that all Status answers agree in a field.
fn same(record: &Record, name: &str, field: fn(&StatusAnswer) -> &str) -> Verdict {
    let calls = record.statuses.iter().chain([&record.first]).chain(record.alive.values());
    let answers: Vec<_> = calls.filter_map(|call| call.answer.as_ref().ok()).map(field).collect();
    let distinct: BTreeSet<_> = answers.iter().collect();
    match distinct.len() {
        0 => skipped("no call had an answer"),
        1 => holds(format!("{} answers agree", answers.len())),
        more => {
            let shown: Vec<_> = distinct.iter().take(4).map(|value| quoted(value)).collect();
            broken(format!("{more} values of {name}: {}", shown.join(", ")))
        }
    }
}
