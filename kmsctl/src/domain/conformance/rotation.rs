//! Rules for a rotation of the key. They need the operator's command for it.

use std::collections::BTreeSet;

use super::{
    Record, Rotated, Rule, Severity, Verdict,
    check::{all_refused, all_same, broken, holds, quoted, skipped},
    encrypt,
};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "rotation-seen",
        numbers: &[57],
        title: "After a rotation, Status has a new key id within the given time",
        severity: Severity::Error,
        source: "KEP-3299",
        judge: |record| {
            of(record, |rotated| match (&rotated.hook, rotated.after) {
                (Err(error), _) => broken(format!("the command failed: {error}")),
                (Ok(()), Some(after)) => holds(format!("after {:.1} s", after.as_secs_f64())),
                (Ok(()), None) => broken(format!(
                    "the key id is the old one after {} s",
                    rotated.watched.as_secs()
                )),
            })
        },
    },
    Rule {
        id: "rotation-once",
        numbers: &[57, 58, 62],
        title: "The key id changes once, and never comes back",
        severity: Severity::Error,
        source: "KEP-3299; GoogleCloudPlatform/k8s-cloudkms-plugin#27",
        judge: |record| {
            changed(record, |rotated| {
                let shown: Vec<_> = rotated.ids.iter().map(|id| quoted(id)).collect();
                let distinct: BTreeSet<_> = rotated.ids.iter().collect();
                let text = shown.join(", then ");
                let once = rotated.ids.len() == 2 && distinct.len() == 2;
                if once { holds(text) } else { broken(text) }
            })
        },
    },
    Rule {
        id: "rotation-answers",
        numbers: &[57],
        title: "Status answers all through a rotation",
        severity: Severity::Error,
        source: "config.go",
        judge: |record| {
            of(record, |rotated| match rotated.failed.first() {
                Some(refusal) => broken(format!("{} failed: {refusal}", rotated.failed.len())),
                None => holds(format!("watched for {} s", rotated.watched.as_secs())),
            })
        },
    },
    Rule {
        id: "rotation-encrypt",
        numbers: &[26, 57, 64],
        title: "All through a rotation, Encrypt has the key id of Status",
        severity: Severity::Error,
        source: "config.go (rotateDEKOnKeyIDChange)",
        judge: |record| of(record, |rotated| encrypt::key_ids(&rotated.pairs)),
    },
    Rule {
        id: "rotation-new-id",
        numbers: &[57],
        title: "After the change, Encrypt has the new key id, and Decrypt opens what it wraps",
        severity: Severity::Error,
        source: "KEP-3299",
        judge: |record| {
            changed(record, |rotated| {
                let last = rotated.pairs.last().map(|pair| &pair.wrap.answer);
                match last {
                    Some(Ok(wrapped)) if wrapped.key_id == rotated.old => {
                        broken(format!("Encrypt has the old key id {}", quoted(&wrapped.key_id)))
                    }
                    Some(Err(refusal)) => broken(refusal),
                    Some(Ok(_)) => all_same(&rotated.new_reads),
                    None => skipped("no Encrypt was made"),
                }
            })
        },
    },
    Rule {
        id: "rotation-old-data",
        numbers: &[29, 57, 65],
        title: "After a rotation, what was wrapped before it is still opened",
        severity: Severity::Error,
        source: "KEP-3299",
        judge: |record| changed(record, |rotated| all_same(&rotated.old_reads)),
    },
    Rule {
        id: "rotation-key-id-bound",
        numbers: &[34],
        title: "The key id of another version is refused for a ciphertext",
        severity: Severity::Warning,
        source: "kms-provider.md",
        judge: |record| changed(record, |rotated| all_refused(&rotated.swapped)),
    },
];

fn of(record: &Record, judge: fn(&Rotated) -> Verdict) -> Verdict {
    match &record.rotated {
        Some(rotated) => judge(rotated),
        None => skipped("give --rotate"),
    }
}

/// Judges a rotation that Status has shown.
fn changed(record: &Record, judge: fn(&Rotated) -> Verdict) -> Verdict {
    match &record.rotated {
        Some(rotated) if rotated.after.is_none() => skipped("the key id has not changed"),
        Some(rotated) => judge(rotated),
        None => skipped("give --rotate"),
    }
}
