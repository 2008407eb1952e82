//! Rules for Encrypt.

use std::{collections::BTreeMap, time::Duration};

use vault_kube_kms::domain::envelope::{ANNOTATIONS_MAX, CIPHERTEXT_MAX};

use super::answer::{Call, Wrapped};
use super::{
    Opened, Pair, Record, Rule, Severity, Verdict,
    check::{Milliseconds, all_same, broken, every, holds, percentile, quoted, skipped},
};

/// The limits of a name in DNS: of a label, and of the whole name, in bytes.
const LABEL_MAX: usize = 63;
const NAME_MAX: usize = 253;

/// The largest share of a stored object that is still small, in bytes.
const SMALL: usize = 512;

/// The target of `kms-provider.md` for Encrypt.
const TARGET: Duration = Duration::from_millis(100);

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "encrypt-32",
        numbers: &[20],
        title: "Encrypt accepts a seed of 32 bytes",
        severity: Severity::Error,
        source: "envelope.go",
        judge: |record| match wraps(record).find_map(|call| call.answer.as_ref().err()) {
            Some(refusal) => broken(refusal),
            None if record.pairs.is_empty() => skipped("no call was made"),
            None => holds(format!("{} calls", record.pairs.len())),
        },
    },
    Rule {
        id: "encrypt-ciphertext",
        numbers: &[20],
        title: "A ciphertext has 1 to 1024 bytes",
        severity: Severity::Error,
        source: "envelope.go (validateEncryptedDEKSource); api.proto",
        judge: |record| {
            every(wraps(record), "ciphertexts", |wrapped| {
                let length = wrapped.ciphertext.len();
                let valid = (1..=CIPHERTEXT_MAX).contains(&length);
                (!valid).then(|| format!("a ciphertext of {length} bytes"))
            })
        },
    },
    Rule {
        id: "encrypt-key-id",
        numbers: &[20, 26],
        title: "The key id of Encrypt is the one of Status",
        severity: Severity::Error,
        source: "config.go (rotateDEKOnKeyIDChange); kubernetes/cloud-provider-openstack#2535; kubernetes/kms#2",
        judge: |record| key_ids(&record.pairs),
    },
    Rule {
        id: "encrypt-annotation-names",
        numbers: &[20],
        title: "The name of an annotation is a fully qualified DNS-1123 name with at least two labels",
        severity: Severity::Error,
        source: "envelope.go (validateAnnotations); kubernetes/kubernetes#117565",
        judge: |record| {
            every(wraps(record), "answers have valid names", |wrapped| {
                let bad = wrapped.annotations.keys().find(|name| !is_qualified(name))?;
                Some(format!("the annotation {}", quoted(bad)))
            })
        },
    },
    Rule {
        id: "encrypt-annotation-size",
        numbers: &[20],
        title: "Names and values of the annotations have at most 32 KiB together",
        severity: Severity::Error,
        source: "envelope.go (annotationsMaxSize); kubernetes/kubernetes#112461",
        judge: |record| {
            every(wraps(record), "answers", |wrapped| {
                let size = annotations_size(wrapped);
                (size > ANNOTATIONS_MAX).then(|| format!("{size} bytes of annotations"))
            })
        },
    },
    Rule {
        id: "encrypt-hides",
        numbers: &[27, 68],
        title: "Neither ciphertext nor annotations nor key id show the plaintext, raw, in hex or in base64",
        severity: Severity::Error,
        source: "api.proto; checker.go",
        judge: |record| match record.pairs.iter().find_map(|pair| pair.shown_in) {
            Some(place) => broken(format!("the plaintext can be read in {place}")),
            None if record.wrapped().is_none() => skipped("nothing could be wrapped"),
            None => holds(format!("{} answers", record.pairs.len())),
        },
    },
    Rule {
        id: "encrypt-distinct",
        numbers: &[22],
        title: "Distinct plaintexts have distinct answers: the API server caches by the answer",
        severity: Severity::Error,
        source: "kms-provider.md; cache.go",
        judge: |record| repeated(record, |one, other| one != other),
    },
    Rule {
        id: "encrypt-fresh",
        numbers: &[21],
        title: "Equal plaintexts have distinct ciphertexts",
        severity: Severity::Warning,
        source: "KEP-3299",
        judge: |record| repeated(record, |one, other| one == other),
    },
    Rule {
        id: "encrypt-empty",
        numbers: &[23],
        title: "An empty plaintext is refused, or comes back; it never has an empty ciphertext",
        severity: Severity::Warning,
        source: "api.proto",
        judge: |record| sizes(record, |bytes| bytes == 0),
    },
    Rule {
        id: "encrypt-sizes",
        numbers: &[24],
        title: "Plaintexts of other sizes are refused, or come back from a ciphertext of at most 1024 bytes",
        severity: Severity::Warning,
        source: "envelope.go",
        judge: |record| sizes(record, |bytes| bytes > 0),
    },
    Rule {
        id: "encrypt-uid",
        numbers: &[25],
        title: "A call with a long uid, or with line breaks in it, does no harm to later calls",
        severity: Severity::Warning,
        source: "api.proto (the uid is for logs)",
        judge: |record| match record.alive.get("unusual uids").map(|call| &call.answer) {
            None => skipped("no call was made"),
            Some(Err(refusal)) => broken(format!("Status after it: {refusal}")),
            Some(Ok(_)) => match all_same(&record.uids) {
                Verdict::Broken(_) => holds("an error, and the plugin goes on"),
                other => other,
            },
        },
    },
    Rule {
        id: "encrypt-small",
        numbers: &[],
        title: "Ciphertext, key id and annotations have at most 512 bytes together: each object stores them",
        severity: Severity::Info,
        source: "envelope.go",
        judge: |record| match record.wrapped() {
            None => skipped("nothing could be wrapped"),
            Some(wrapped) => {
                let sum = wrapped.ciphertext.len().saturating_add(wrapped.key_id.len());
                let sum = sum.saturating_add(annotations_size(wrapped));
                let text = format!("{sum} bytes in each object");
                if sum > SMALL { broken(text) } else { holds(text) }
            }
        },
    },
    Rule {
        id: "encrypt-fast",
        numbers: &[],
        title: "Encrypt takes less than 100 ms in the middle",
        severity: Severity::Info,
        source: "kms-provider.md",
        judge: |record| {
            let took = wraps(record).map(|call| call.took).collect();
            match percentile(took, 50) {
                Some(middle) if middle > TARGET => broken(format!("p50 {}", Milliseconds(middle))),
                Some(middle) => holds(format!("p50 {}", Milliseconds(middle))),
                None => skipped("no call was made"),
            }
        },
    },
];

fn wraps(record: &Record) -> impl Iterator<Item = &Call<Wrapped>> {
    record.pairs.iter().map(|pair| &pair.wrap)
}

/// Requires that each Encrypt has the key id that Status gave just before or just after it. Both
/// differ only while a rotation takes over.
pub(super) fn key_ids(pairs: &[Pair]) -> Verdict {
    let mut seen = 0_usize;
    for pair in pairs {
        let (Ok(wrapped), Some(before), Some(after)) =
            (&pair.wrap.answer, &pair.before, &pair.after)
        else {
            continue;
        };
        if wrapped.key_id != *before && wrapped.key_id != *after {
            return broken(format!(
                "Encrypt has {}, Status has {}",
                quoted(&wrapped.key_id),
                quoted(after)
            ));
        }
        seen = seen.saturating_add(1);
    }
    if seen == 0 { skipped("no Encrypt had an answer") } else { holds(format!("{seen} agree")) }
}

fn annotations_size(wrapped: &Wrapped) -> usize {
    wrapped.annotations.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum()
}

/// Returns whether `name` passes `IsFullyQualifiedDomainName` of `k8s.io/apimachinery`.
fn is_qualified(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (1..=LABEL_MAX).contains(&label.len())
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= NAME_MAX && name.contains('.') && name.split('.').all(is_label)
}

/// Requires that no two answers are equal, among the pairs whose seeds `of` selects.
fn repeated(record: &Record, of: fn(usize, usize) -> bool) -> Verdict {
    let mut first: BTreeMap<&Wrapped, Vec<usize>> = BTreeMap::new();
    for pair in &record.pairs {
        if let Ok(wrapped) = &pair.wrap.answer {
            first.entry(wrapped).or_default().push(pair.seed);
        }
    }
    let clash = first.values().find(|seeds| {
        let mut rest = seeds.iter();
        rest.next().is_some_and(|one| rest.any(|other| of(*one, *other)))
    });
    match clash {
        Some(_) => broken("two calls have the same answer"),
        None if first.is_empty() => skipped("nothing could be wrapped"),
        None => holds(format!("{} distinct answers", first.len())),
    }
}

fn sizes(record: &Record, of: fn(usize) -> bool) -> Verdict {
    let mut seen = Vec::new();
    for size in record.sizes.iter().filter(|size| of(size.bytes)) {
        let bytes = size.bytes;
        seen.push(match &size.answer {
            Err(refusal) => format!("{bytes}: {}", refusal.code),
            Ok((length, Opened::Same)) if (1..=CIPHERTEXT_MAX).contains(length) => {
                format!("{bytes}: {length}")
            }
            Ok((length, opened)) => {
                return broken(format!(
                    "{bytes} bytes: a ciphertext of {length} bytes, and Decrypt: {opened}"
                ));
            }
        });
    }
    if seen.is_empty() { skipped("no call was made") } else { holds(seen.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_qualified_as_the_api_server_sees_it() {
        let long = format!("{}.example", "a".repeat(64));
        for (name, qualified) in [
            ("local-kek.kms.kubernetes.io", true),
            ("format.vault-kube-kms", true),
            ("kms.example.", true),
            ("kms.example.io/audit-id", false),
            ("version", false),
            ("Version.example", false),
            ("-a.example", false),
            ("a..example", false),
            ("", false),
            (long.as_str(), false),
        ] {
            assert_eq!(is_qualified(name), qualified, "{name}");
        }
    }
}
