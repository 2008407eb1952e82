//! Whether a KMS v2 plugin does what the API server requires: the rules, over a [`Record`] of its
//! answers.
//!
//! Sources of the rules:
//! - `KEP-3299`: kubernetes/enhancements, `keps/sig-auth/3299-kms-v2-improvements`
//! - `kms-provider.md`: kubernetes/website, `docs/tasks/administer-cluster/kms-provider.md`
//! - `api.proto`: kubernetes/kms, `apis/v2/api.proto`
//! - `envelope.go`, `grpc_service.go`: kubernetes/apiserver,
//!   `pkg/storage/value/encrypt/envelope/kmsv2`
//! - `config.go`: kubernetes/apiserver, `pkg/server/options/encryptionconfig`
//! - `checker.go`: openshift/library-go, `pkg/operator/encryption/kms/preflight`
//! - `owner/repository#number`: a report of somebody whose plugin or API server failed

mod answer;
mod check;
mod decrypt;
mod encrypt;
mod record;
mod restart;
mod rotation;
mod status;
mod transport;

use serde::Serialize;

pub use answer::{Call, Foreign, Refusal, StatusAnswer, Wrapped};
pub use check::percentile;
pub use record::{Opened, Pair, Preflight, Record, Restarted, Rotated, Size, Transport, Trial};
pub use status::OK;

/// What a broken rule means for a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The API server refuses the plugin, fails, or loses data.
    Error,
    /// It works until a fault or an attack.
    Warning,
    /// Good to know.
    Info,
}

impl Severity {
    /// Returns the severity in one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Whether a plugin keeps a rule, and the evidence: one line, without plaintext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The rule holds.
    Holds(String),
    /// The rule is broken.
    Broken(String),
    /// The rule could not be tried. The text says why.
    Skipped(String),
}

/// One rule of KMS v2.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The stable name, such as `status-key-id`.
    pub id: &'static str,
    /// Its numbers in the project's list of requirements, which the tests name too.
    pub numbers: &'static [u8],
    /// What must be so.
    pub title: &'static str,
    /// What a broken rule means.
    pub severity: Severity,
    /// Where the rule is written, or enforced.
    pub source: &'static str,
    /// Judges a record.
    pub judge: fn(&Record) -> Verdict,
}

/// Returns all rules, in the order of a report.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    [
        status::RULES,
        encrypt::RULES,
        decrypt::RULES,
        transport::RULES,
        rotation::RULES,
        restart::RULES,
    ]
    .into_iter()
    .flatten()
}
