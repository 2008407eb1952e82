//! The error type of the domain: a stable code, a cause and a remedy.

use std::{borrow::Cow, fmt};

/// The reason why a call failed. The text form is stable, because operators alert on it.
///
/// [`crate::ports::kek`] says which code a keeper returns in which case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// The keeper, or a server in front of it, ignores associated data.
    AadNotEnforced,
    /// The audit log cannot be written, and the operator chose that calls then fail.
    AuditLogFailing,
    /// The keeper rejected the ciphertext: it was changed, moved to another object, or made with
    /// another key.
    CiphertextRejected,
    /// A file that holds a credential is missing, unreadable or empty.
    CredentialUnreadable,
    /// The caller's deadline passed before the keeper answered.
    DeadlineExceeded,
    /// A proxy, a load balancer or another server answered instead of the keeper. The answer says
    /// nothing about data, key, policy or credentials.
    Intermediary,
    /// A bug: the process reached a state that must not exist.
    Internal,
    /// The request breaks a rule of KMS v2.
    InvalidRequest,
    /// The keeper's answer cannot be read or contradicts itself.
    KeeperAnswer,
    /// The keeper answered with an internal failure (5xx).
    KeeperFailed,
    /// The keeper refuses the call for now, because of a quota or an overload.
    KeeperOverloaded,
    /// The keeper is locked, not set up, or none of its nodes serves.
    KeeperSealed,
    /// The keeper accepted the call and did not answer in time.
    KeeperTimeout,
    /// The keeper cannot be reached: refused, reset, no such host, TLS.
    KeeperUnreachable,
    /// The key id, or a legacy ciphertext, does not name a version of this key.
    KeyIdUnknown,
    /// The keeper does not have the key.
    KeyMissing,
    /// The key's name now belongs to another key.
    KeyReplaced,
    /// The keeper went back to an older state of the key.
    KeyRolledBack,
    /// The key's type or settings do not allow it to wrap safely.
    KeyUnusable,
    /// The keeper does not accept the credentials of this process.
    LoginRefused,
    /// This process handles as many calls as its limit allows.
    Overloaded,
    /// The keeper's policy does not allow the operation.
    PermissionDenied,
    /// No proof of the writing version has ended yet.
    ProofPending,
    /// The keeper has not answered since the process started.
    Starting,
    /// This node of the keeper does not have the key version yet.
    VersionNotYet,
    /// The key version is archived or deleted.
    VersionRetired,
    /// A refusal that only one kind of keeper has. The value is its stable text in kebab case. It
    /// is not an outage, and a repeated call does not help. The keeper's settings list all its
    /// texts, so that their metrics exist from the start.
    OfKeeper(&'static str),
}

impl Code {
    /// All codes that every keeper shares, for metrics that exist from the start.
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

    /// Returns the stable text form, in kebab case.
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

    /// Returns whether the same call may succeed later without any change by an operator.
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

    /// Returns whether the code is an outage of the keeper, and not a refusal.
    ///
    /// Only an outage has a grace time (`--outage-grace`), and writes may go on only during an
    /// outage (`--outage-policy=keep-writing`).
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

/// A failure: a stable code, the cause and the remedy. Its text has one line and contains no
/// secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsError {
    code: Code,
    cause: Cow<'static, str>,
    remedy: Cow<'static, str>,
}

/// The maximum length of the cause and of the remedy, in bytes each. kube-apiserver repeats the
/// text in logs and HTTP answers.
const TEXT_MAX: usize = 400;

impl KmsError {
    /// Makes an error from its code, what failed and why, and what to do about it.
    ///
    /// Replaces control characters by spaces and cuts texts that are too long, so that the error
    /// has one line even when it contains text of a keeper or a caller.
    pub fn new(
        code: Code,
        cause: impl Into<Cow<'static, str>>,
        remedy: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { code, cause: one_line(cause.into()), remedy: one_line(remedy.into()) }
    }

    /// Returns the stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Returns what failed and why, without the code and the remedy.
    #[must_use]
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// Returns what to do about the failure.
    #[must_use]
    pub fn remedy(&self) -> &str {
        &self.remedy
    }

    /// Returns whether the same call may succeed later without any change by an operator.
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
    fn prints_code_cause_and_remedy_on_one_line() {
        let error = KmsError::new(Code::KeyMissing, "no key\n\t\"k1\"", "create it");
        assert_eq!(error.to_string(), "key-missing: no key  \"k1\"; create it");
    }

    /// KMS v2 allows 1,024 characters in `healthz` of Status.
    #[test]
    fn the_longest_error_fits_into_healthz() {
        let long = "x".repeat(10_000);
        let error = KmsError::new(Code::CredentialUnreadable, long.clone(), long);
        assert!(error.to_string().len() <= 1_024);
    }

    #[test]
    fn cuts_a_long_text_between_two_characters() {
        let error = KmsError::new(Code::KeeperAnswer, "é".repeat(10_000), "");
        assert_eq!(error.cause().len(), TEXT_MAX);
    }
}
