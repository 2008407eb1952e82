//! Rules for gRPC, HTTP/2 and the socket.

use super::answer::{Foreign, Refusal};
use super::{
    Record, Rule, Severity, Verdict,
    check::{Milliseconds, all_same, broken, holds, skipped},
};

/// The bit of a mode by which every user may connect.
const OTHERS_WRITE: u32 = 0o002;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "connect",
        numbers: &[1],
        title: "A new connection works at once",
        severity: Severity::Error,
        source: "grpc_service.go",
        judge: |record| match &record.first.answer {
            Ok(_) => holds(format!("Status after {}", Milliseconds(record.first.took))),
            Err(refusal) => broken(refusal),
        },
    },
    Rule {
        id: "socket-mode",
        numbers: &[48],
        title: "Only owner and group may connect: a process that may connect can unwrap every seed",
        severity: Severity::Warning,
        source: "kms-provider.md; ThalesGroup/k8s-kms-plugin#6",
        judge: |record| match record.mode {
            None => skipped("an abstract socket has no mode"),
            Some(mode) if mode & OTHERS_WRITE != 0 => broken(format!("the mode is {mode:03o}")),
            Some(mode) => holds(format!("the mode is {mode:03o}")),
        },
    },
    Rule {
        id: "connections",
        numbers: &[6],
        title: "16 connections at once work: several API servers and health checks share a socket",
        severity: Severity::Error,
        source: "openshift/library-go pkg/operator/encryption/kms/health",
        judge: |record| all_same(&record.connections),
    },
    Rule {
        id: "storm",
        numbers: &[5, 39],
        title: "Many distinct Decrypts at once, 64 wide, are all answered within the timeout",
        severity: Severity::Error,
        source: "grpc_service_unix_test.go; kubernetes/kubernetes#90856",
        judge: |record| all_same(&record.storm),
    },
    Rule {
        id: "cancelled",
        numbers: &[8],
        title: "Calls that the API server cancels leave the plugin working",
        severity: Severity::Error,
        source: "healthz.go (probes cancel calls)",
        judge: |record| alive(record, "cancelled calls"),
    },
    Rule {
        id: "deadline",
        numbers: &[9],
        title: "A call with a deadline of 1 ms ends soon, and the plugin goes on",
        severity: Severity::Warning,
        source: "grpc_service.go (each call has a deadline)",
        judge: |record| {
            if record.transport.hurried.took > record.timeout {
                return broken(format!(
                    "it ended after {}",
                    Milliseconds(record.transport.hurried.took)
                ));
            }
            alive(record, "a short deadline")
        },
    },
    Rule {
        id: "unknown-method",
        numbers: &[4],
        title: "An unknown method is answered with Unimplemented, and the connection stays",
        severity: Severity::Warning,
        source: "the gRPC specification",
        judge: |record| match &record.transport.unknown_method.answer {
            Err(refusal) if refusal.code == "Unimplemented" => alive(record, "an unknown method"),
            Err(refusal) => broken(refusal),
            Ok(()) => broken("it had an answer"),
        },
    },
    Rule {
        id: "unknown-field",
        numbers: &[7],
        title: "A field that the plugin does not know is ignored: later API servers may send it",
        severity: Severity::Warning,
        source: "the protobuf specification",
        judge: |record| match &record.transport.unknown_field.answer {
            Ok(()) => holds("Status answers"),
            Err(refusal) => broken(refusal),
        },
    },
    Rule {
        id: "old-authority",
        numbers: &[3],
        title: "The path of the socket is accepted as authority: API servers before 1.32 send it",
        severity: Severity::Warning,
        source: "grpc_service.go; kubernetes/kubernetes#126929; k3s-io/k3s#10754",
        judge: |record| match &record.transport.old_authority {
            Ok(()) => holds("Status answers"),
            Err(text) => broken(text),
        },
    },
    Rule {
        id: "foreign-bytes",
        numbers: &[10],
        title: "Bytes that are not HTTP/2 close their connection, and the plugin goes on",
        severity: Severity::Warning,
        source: "the HTTP/2 specification",
        judge: foreign,
    },
    Rule {
        id: "huge-message",
        numbers: &[11],
        title: "A message of more than 4 MiB is refused, and the plugin goes on",
        severity: Severity::Warning,
        source: "the limit of gRPC",
        judge: |record| match &record.transport.huge.answer {
            Ok(()) => broken("it had an answer"),
            Err(refusal) if refusal.code == Refusal::LATE => broken(refusal),
            Err(_) => alive(record, "a huge message"),
        },
    },
];

/// Requires that Status had an answer after the part `name`.
fn alive(record: &Record, name: &str) -> Verdict {
    match record.alive.get(name).map(|call| &call.answer) {
        None => skipped("no call was made"),
        Some(Err(refusal)) => broken(format!("Status after it: {refusal}")),
        Some(Ok(_)) => holds("Status answers after it"),
    }
}

fn foreign(record: &Record) -> Verdict {
    for (name, outcome) in &record.transport.foreign {
        match outcome {
            Ok(Foreign::Closed) => {}
            Ok(Foreign::Open) => return broken(format!("{name}: the connection stays open")),
            Err(error) => return broken(format!("{name}: {error}")),
        }
    }
    alive(record, "foreign bytes")
}
