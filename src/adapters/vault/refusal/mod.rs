//! A server's refusal. Its texts are matched by what they contain, never repeated: login errors can
//! hold the secret ID itself, and a proxy may echo what it was sent.

mod meaning;

use std::{fmt, time::Duration};

use zeroize::Zeroize as _;

pub(super) use self::meaning::enterprise_required;
use super::wire::Errors;

/// An answer that was no success. Its texts may hold secrets.
pub(super) struct Refusal {
    /// The HTTP status.
    pub(super) status: u16,
    /// How long the server asks to wait.
    pub(super) retry_after: Option<Duration>,
    /// Where a redirection points; a server's text.
    location: Option<String>,
    /// The `errors` of its body, lower case; empty when it had none or was not JSON.
    texts: Vec<String>,
}

/// What was asked, for the wording of the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    /// The key's metadata.
    Describe(&'a str),
    /// A wrap.
    Wrap(&'a str),
    /// An unwrap.
    Unwrap(&'a str),
    /// A login at this mount.
    Login(&'a str),
    /// A renewal or a revocation.
    Renew,
    /// The licence.
    License,
    /// What the token may do.
    Capabilities,
}

impl Refusal {
    /// A refusal from a status, `Retry-After`, `Location` and a body, which may be anything.
    pub(super) fn new(
        status: u16,
        retry_after: Option<Duration>,
        location: Option<String>,
        body: &[u8],
    ) -> Self {
        let texts = match serde_json::from_slice::<Errors>(body) {
            Ok(body) => body.errors,
            Err(_) => vec![String::from_utf8_lossy(body.get(..256).unwrap_or(body)).into_owned()],
        };
        let texts = texts.iter().map(|text| text.to_lowercase()).collect();
        Self { status, retry_after, location, texts }
    }

    /// The refusal of one item of a batch, by its text.
    pub(super) fn of_item(text: &str) -> Self {
        Self { status: 400, retry_after: None, location: None, texts: vec![text.to_lowercase()] }
    }

    /// Where a redirection points.
    pub(super) fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// Whether it gives no reason at all.
    pub(super) fn is_silent(&self) -> bool {
        self.texts.is_empty()
    }

    /// Whether this node of the cluster has not heard of a key version yet.
    pub(super) fn is_about_a_new_version(&self) -> bool {
        self.says("version is too new") || self.says("higher than the latest key version")
    }

    /// Whether a failure of the server's own will be the same next time.
    pub(super) fn is_permanent(&self) -> bool {
        ["does not exist during renewal", "unable to get associated_data", "missing role_id"]
            .into_iter()
            .any(|text| self.says(text))
    }

    /// Whether the cluster has no leader that this node knows of: an election, most often.
    pub(super) fn knows_no_leader(&self) -> bool {
        self.says("active cluster node not found") || self.says("no active vault instance found")
    }

    /// Whether a text of this refusal is one that is known to be the caller's fault, so that
    /// sending the same again is of no use.
    pub(super) fn is_known(&self) -> bool {
        [
            "message authentication failed",
            "invalid ciphertext",
            "too old",
            "too new",
            "no such key version",
            "encryption key not found",
            "soft-deleted",
            "missing 'context'",
            "non-aead",
            "not supported for key type",
        ]
        .into_iter()
        .any(|text| self.says(text))
    }

    /// Whether a login was refused in a way that counts: the pair of role ID and secret ID was
    /// looked at and is not known. Neither a locked role nor a wrong address does.
    pub(super) fn may_lock_the_role(&self) -> bool {
        self.status == 400 && !self.says("cidr")
    }

    fn says(&self, text: &str) -> bool {
        self.texts.iter().any(|said| said.contains(text))
    }

    /// Whether the token itself was refused, as opposed to a policy saying no to a good one:
    /// servers wrap the latter in an error list.
    pub(super) fn is_dead_token(&self) -> bool {
        self.status == 403
            && (self.says("invalid token") || self.texts.iter().any(|t| t == "permission denied"))
    }
}

impl Drop for Refusal {
    fn drop(&mut self) {
        self.texts.zeroize();
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal").field("status", &self.status).finish_non_exhaustive()
    }
}
