//! The retry table: which failures are tried again, where, how often, and after which wait. The
//! client has the loop that applies it.

use std::time::Duration;

use super::Repeat;
use crate::adapters::vault::{servers::Failure, vocabulary::RetryReason};

/// The largest number of requests for one call, for any sequence of failures.
pub(super) const REQUESTS_MAX: u32 = 6;

/// Where the next request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// To another endpoint, or to the same one if there is no other.
    PreferOther,
    /// To an endpoint that this call has not tried yet. If there is none, the failure is final.
    RequireOther,
    /// To the same endpoint, on any connection.
    Same,
    /// To the endpoint that a redirection names.
    RedirectTarget,
}

/// The next tries after a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RetryRule {
    /// Where to send the request again.
    pub(super) place: Where,
    /// The wait before each repetition. Their number is the largest number of repetitions.
    pub(super) waits: &'static [Duration],
}

const NOW: Duration = Duration::ZERO;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Returns the row of the table for `reason`. `None` means that the failure is final.
pub(super) const fn rule(reason: RetryReason, repeat: Repeat) -> Option<RetryRule> {
    use RetryReason::{
        Internal, Lost, NotCaughtUp, NotYet, Quota, Redirected, TokenUnknown, Unavailable, Unsent,
    };
    let (place, waits): (_, &'static [Duration]) = match (reason, repeat) {
        // The request was not sent. Try the next endpoint at once, and later the first one again.
        (Unsent, _) => (Where::PreferOther, const { &[NOW, ms(100), ms(300)] }),
        // The keeper may have executed the request.
        (Lost, Repeat::Freely) => (Where::PreferOther, const { &[NOW, ms(100)] }),
        (Lost, Repeat::Once) => (Where::PreferOther, const { &[NOW] }),
        // The problem may exist on this node only.
        (Internal, Repeat::Freely | Repeat::Once) => (Where::PreferOther, const { &[ms(50)] }),
        // A standby may not know a new token yet. The refusal is final if a second node also
        // refuses the token, or redirects back to the first.
        (TokenUnknown, Repeat::Freely) => (Where::RequireOther, const { &[NOW] }),
        (Lost | Internal | TokenUnknown, Repeat::Never) | (TokenUnknown, Repeat::Once) => {
            return None;
        }
        (Redirected, _) => (Where::RedirectTarget, const { &[NOW] }),
        // The node does not know the key version yet. The longest measured delay is 109 ms. Prefer
        // another node, because a leader can miss a rotation for ever (seen with OpenBao).
        (NotYet, _) => (Where::PreferOther, const { &[ms(20), ms(50), ms(100), ms(200)] }),
        // The node has not reached the cluster state of an earlier answer, and cannot forward the
        // request. Another node may have reached it. A login stays at the active node, because a
        // standby may not know a new secret ID yet, and its refusal would count.
        (NotCaughtUp, Repeat::Once | Repeat::Never) => {
            (Where::Same, const { &[ms(20), ms(50), ms(100)] })
        }
        (NotCaughtUp, Repeat::Freely) => (Where::PreferOther, const { &[ms(20), ms(50), ms(100)] }),
        // Used only if the server names no wait.
        (Quota, _) => (Where::Same, const { &[ms(1_000)] }),
        (Unavailable, _) => (Where::PreferOther, const { &[ms(20), ms(100), ms(300)] }),
    };
    Some(RetryRule { place, waits })
}

/// Returns the reason for another try after `failure`, or `None` if the failure is final.
pub(super) fn reason(failure: &Failure) -> Option<RetryReason> {
    match failure {
        // An endpoint of another cluster may accept the credential.
        Failure::Unsent(_) | Failure::Disregarded(_) => Some(RetryReason::Unsent),
        Failure::Lost(_) => Some(RetryReason::Lost),
        Failure::Redirected { .. } => Some(RetryReason::Redirected),
        Failure::Intermediary { status, .. } => match status {
            413 => None,
            429 => Some(RetryReason::Quota),
            503 => Some(RetryReason::Unavailable),
            // The intermediary may have forwarded the request, so the keeper may have executed it.
            _ => Some(RetryReason::Lost),
        },
        Failure::Refused(refusal) if refusal.is_about_the_node() => Some(RetryReason::Unavailable),
        Failure::Refused(refusal) if refusal.is_behind() => Some(RetryReason::NotCaughtUp),
        Failure::Refused(refusal) => match refusal.status {
            400 if refusal.is_about_a_new_version() => Some(RetryReason::NotYet),
            403 if refusal.is_dead_token() => Some(RetryReason::TokenUnknown),
            429 => Some(RetryReason::Quota),
            500 if !refusal.is_permanent() => Some(RetryReason::Internal),
            502 | 504 => Some(RetryReason::Lost),
            503 => Some(RetryReason::Unavailable),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::vault::{address::VaultAddress, refusal::Refusal};

    fn refused(status: u16, text: &str) -> Failure {
        let body = serde_json::json!({ "errors": [text] }).to_string();
        Failure::Refused(Refusal::read(status, None, body.as_bytes()).unwrap())
    }

    /// Checks the table of the HTTP contract, row by row.
    #[test]
    fn each_answer_has_the_retry_reason_of_the_table() {
        for (status, text, expected) in [
            (400, "path disabled in replication DR secondary mode", Some(RetryReason::Unavailable)),
            (400, "invalid ciphertext: version is too new", Some(RetryReason::NotYet)),
            (
                400,
                "requested version for encryption is higher than the latest key version",
                Some(RetryReason::NotYet),
            ),
            (400, "cipher: message authentication failed", None),
            (400, "invalid role or secret ID", None),
            (403, "permission denied", Some(RetryReason::TokenUnknown)),
            (403, "1 error occurred:\n\t* permission denied\n\n", None),
            (404, "no handler for route", None),
            (405, "unsupported operation", None),
            (412, "", Some(RetryReason::NotCaughtUp)),
            (413, "http: request body too large", None),
            (429, "request path \"x\": rate limit quota exceeded", Some(RetryReason::Quota)),
            (472, "", Some(RetryReason::Unavailable)),
            (500, "internal error", Some(RetryReason::Internal)),
            (
                500,
                "local node not active but active cluster node not found",
                Some(RetryReason::Unavailable),
            ),
            (500, "role \"x\" does not exist during renewal", None),
            (500, "unable to get associated_data", None),
            (500, "failed to determine alias name from login request", None),
            (500, "JSON string value exceeds allowed length", None),
            (501, "", Some(RetryReason::Unavailable)),
            (502, "", Some(RetryReason::Lost)),
            (503, "Vault is sealed", Some(RetryReason::Unavailable)),
            (504, "", Some(RetryReason::Lost)),
        ] {
            assert_eq!(reason(&refused(status, text)), expected, "{status} {text}");
        }
        let silent = Refusal::read(429, None, br#"{"errors":[]}"#).unwrap();
        assert_eq!(reason(&Failure::Refused(silent)), Some(RetryReason::NotCaughtUp));
        let address = VaultAddress::parse("https://vault:8200").unwrap();
        for (status, expected) in [
            (200, Some(RetryReason::Lost)),
            (403, Some(RetryReason::Lost)),
            (413, None),
            (429, Some(RetryReason::Quota)),
            (502, Some(RetryReason::Lost)),
            (503, Some(RetryReason::Unavailable)),
        ] {
            let page = Failure::intermediary(&address, status, None, None, b"<html>");
            assert_eq!(reason(&page), expected, "{status}");
        }
    }

    #[test]
    fn does_not_repeat_a_request_that_is_not_safe_to_repeat() {
        let repeats = |reason, repeat| rule(reason, repeat).map_or(0, |rule| rule.waits.len());
        assert_eq!(repeats(RetryReason::Lost, Repeat::Freely), 2);
        assert_eq!(repeats(RetryReason::Lost, Repeat::Once), 1);
        assert_eq!(repeats(RetryReason::Lost, Repeat::Never), 0);
        assert_eq!(repeats(RetryReason::Internal, Repeat::Never), 0);
        // A request that was not sent is always safe to send again.
        assert!(repeats(RetryReason::Unsent, Repeat::Never) > 0);
    }
}
