//! The one error of the domain: what went wrong, with what, and what to do about it.

use std::{borrow::Cow, fmt};

/// Why a call failed, as a closed vocabulary. The text form is stable: operators alert on it.
///
/// [`crate::ports::kek`] says which code a keeper answers in which case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// The keeper, or the server in front of it, ignores associated data: nothing binds.
    AadNotEnforced,
    /// The audit log cannot be written, and the operator wants calls to fail then.
    AuditLogFailing,
    /// The keeper did not recognise the ciphertext: tampered, moved, or of another key.
    CiphertextRejected,
    /// A file that holds a credential is missing, unreadable or empty.
    CredentialUnreadable,
    /// The caller's deadline passed before the keeper answered.
    DeadlineExceeded,
    /// Something between this process and the keeper answered in its place: a proxy, a load
    /// balancer, or another server. It says nothing about data, key, policy or credentials.
    Intermediary,
    /// Something that cannot happen did.
    Internal,
    /// The request itself breaks a rule of KMS v2.
    InvalidRequest,
    /// The keeper answered something that cannot be understood.
    KeeperAnswer,
    /// The keeper answered with a failure of its own (5xx).
    KeeperFailed,
    /// The keeper refuses for now: a quota or an overload.
    KeeperOverloaded,
    /// The keeper is locked, not set up, or none of its nodes serves.
    KeeperSealed,
    /// The keeper accepted the call and did not answer in time.
    KeeperTimeout,
    /// No connection to the keeper: refused, reset, no such host, TLS.
    KeeperUnreachable,
    /// The key id names no key version of ours.
    KeyIdUnknown,
    /// The keeper has no such key.
    KeyMissing,
    /// Another key stands under the name of ours.
    KeyReplaced,
    /// The keeper went back to an older state of the key.
    KeyRolledBack,
    /// The key's type or settings do not allow it to wrap safely.
    KeyUnusable,
    /// The keeper does not accept our credentials.
    LoginRefused,
    /// This process has more calls in hand than it takes.
    Overloaded,
    /// The keeper's policy does not allow the operation.
    PermissionDenied,
    /// The version that writes has not been proven against the keeper yet.
    ProofPending,
    /// The keeper has not been seen since the process started.
    Starting,
    /// This node of the keeper does not have the key version yet.
    VersionNotYet,
    /// The key version is archived or gone.
    VersionRetired,
    /// A refusal that only one kind of keeper knows, by its stable text in kebab case. It is no
    /// outage, and repeating the call does not help. The keeper's settings list those that there
    /// are, so that metrics have them from the start.
    OfKeeper(&'static str),
}

impl Code {
    /// All that every keeper shares, for metrics that exist from the start.
    pub const ALL: [Self; 26] = [
        Self::AadNotEnforced,
        Self::AuditLogFailing,
        Self::CiphertextRejected,
        Self::CredentialUnreadable,
        Self::DeadlineExceeded,
        Self::Intermediary,
        Self::Internal,
        Self::InvalidRequest,
        Self::KeeperAnswer,
        Self::KeeperFailed,
        Self::KeeperOverloaded,
        Self::KeeperSealed,
        Self::KeeperTimeout,
        Self::KeeperUnreachable,
        Self::KeyIdUnknown,
        Self::KeyMissing,
        Self::KeyReplaced,
        Self::KeyRolledBack,
        Self::KeyUnusable,
        Self::LoginRefused,
        Self::Overloaded,
        Self::PermissionDenied,
        Self::ProofPending,
        Self::Starting,
        Self::VersionNotYet,
        Self::VersionRetired,
    ];

    /// The stable text form, in kebab case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AadNotEnforced => "aad-not-enforced",
            Self::AuditLogFailing => "audit-log-failing",
            Self::CiphertextRejected => "ciphertext-rejected",
            Self::CredentialUnreadable => "credential-unreadable",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::Intermediary => "intermediary-answer",
            Self::Internal => "internal",
            Self::InvalidRequest => "invalid-request",
            Self::KeeperAnswer => "keeper-answer",
            Self::KeeperFailed => "keeper-failed",
            Self::KeeperOverloaded => "keeper-overloaded",
            Self::KeeperSealed => "keeper-sealed",
            Self::KeeperTimeout => "keeper-timeout",
            Self::KeeperUnreachable => "keeper-unreachable",
            Self::KeyIdUnknown => "key-id-unknown",
            Self::KeyMissing => "key-missing",
            Self::KeyReplaced => "key-replaced",
            Self::KeyRolledBack => "key-rolled-back",
            Self::KeyUnusable => "key-unusable",
            Self::LoginRefused => "login-refused",
            Self::Overloaded => "overloaded",
            Self::PermissionDenied => "permission-denied",
            Self::ProofPending => "proof-pending",
            Self::Starting => "starting",
            Self::VersionNotYet => "version-not-yet",
            Self::VersionRetired => "version-retired",
            Self::OfKeeper(text) => text,
        }
    }

    /// Whether the same call may succeed later with nothing changed by anybody.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::AuditLogFailing
                | Self::DeadlineExceeded
                | Self::Intermediary
                | Self::KeeperFailed
                | Self::KeeperOverloaded
                | Self::KeeperSealed
                | Self::KeeperTimeout
                | Self::KeeperUnreachable
                | Self::Overloaded
                | Self::ProofPending
                | Self::Starting
                | Self::VersionNotYet
        )
    }

    /// Whether this is the keeper being away, as opposed to the keeper saying no.
    ///
    /// Only an outage is waited out (`--outage-grace`) and only an outage may keep writing
    /// (`--outage-policy=keep-writing`).
    #[must_use]
    pub const fn is_outage(self) -> bool {
        matches!(
            self,
            Self::DeadlineExceeded
                | Self::Intermediary
                | Self::KeeperFailed
                | Self::KeeperOverloaded
                | Self::KeeperSealed
                | Self::KeeperTimeout
                | Self::KeeperUnreachable
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure: a stable code, what failed and why, and the remedy. One line, nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsError {
    code: Code,
    cause: Cow<'static, str>,
    remedy: Cow<'static, str>,
}

/// The longest text of an error, in bytes: kube-apiserver repeats it in logs and HTTP answers.
const TEXT_MAX: usize = 400;

impl KmsError {
    /// An error from its code, what failed with its cause, and what to do about it.
    ///
    /// Control characters are replaced and over-long texts cut, so that the error stays on one
    /// line whatever a keeper or a caller put into it.
    pub fn new(
        code: Code,
        cause: impl Into<Cow<'static, str>>,
        remedy: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { code, cause: one_line(cause.into()), remedy: one_line(remedy.into()) }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// What failed and why, without the code and the remedy.
    #[must_use]
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &str {
        &self.remedy
    }

    /// Whether the same call may succeed later with nothing changed by anybody.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        self.code.is_retryable()
    }
}

impl fmt::Display for KmsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.code, self.cause, self.remedy)
    }
}

impl std::error::Error for KmsError {}

fn one_line(text: Cow<'static, str>) -> Cow<'static, str> {
    if text.len() <= TEXT_MAX && !text.contains(char::is_control) {
        return text;
    }
    let mut line = String::with_capacity(text.len().min(TEXT_MAX));
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if line.len().saturating_add(c.len_utf8()) > TEXT_MAX {
            break;
        }
        line.push(c);
    }
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_code_cause_remedy_on_one_line() {
        let error = KmsError::new(Code::KeyMissing, "no key\n\t\"k1\"", "create it");
        assert_eq!(error.to_string(), "key-missing: no key  \"k1\"; create it");
    }

    /// What Status may answer as `healthz`: kms-v2 says 1,024 characters.
    #[test]
    fn the_longest_error_fits_the_health_text() {
        let long = "x".repeat(10_000);
        let error = KmsError::new(Code::CredentialUnreadable, long.clone(), long);
        assert!(error.to_string().len() <= 1_024);
    }

    #[test]
    fn a_hostile_text_is_cut_at_a_character() {
        let error = KmsError::new(Code::KeeperAnswer, "é".repeat(10_000), "");
        assert_eq!(error.cause().len(), TEXT_MAX);
    }
}
