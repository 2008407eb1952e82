//! The keeper's own refusal: a JSON body with `errors` as a list of texts. Nothing else is evidence
//! about data, key, policy or credentials.
//!
//! The texts are matched by what they contain and never repeated: login errors can hold the secret
//! ID itself.

mod meaning;

use std::{fmt, time::Duration};

use zeroize::Zeroize as _;

pub(super) use self::meaning::{enterprise_required, plain_http};
use super::wire::Errors;

/// An answer in which the keeper refuses. Its texts may hold secrets.
pub(super) struct Refusal {
    /// The HTTP status.
    pub(super) status: u16,
    /// How long the keeper asks to wait.
    pub(super) retry_after: Option<Duration>,
    /// The `errors` of its body, lower case. May be empty.
    texts: Vec<String>,
}

/// What was asked, for the wording of the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    /// The key's metadata, at this path.
    Describe(&'a str),
    /// A wrap, at this path.
    Wrap(&'a str),
    /// An unwrap, at this path.
    Unwrap(&'a str),
    /// A login at this mount.
    Login(&'a str),
    /// A renewal or a revocation.
    Renew,
    /// The licence.
    License,
    /// What the token may do.
    Capabilities,
    /// How a node is.
    Health,
    /// What a wrapping token wraps.
    Wrapping,
}

impl Refusal {
    /// The refusal in `body`; `None` where the body is not the keeper's: it is not a JSON object
    /// with `errors` as a list of texts.
    pub(super) fn read(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Option<Self> {
        let mut texts = serde_json::from_slice::<Errors>(body).ok()?.errors;
        for text in &mut texts {
            let lower = text.to_lowercase();
            text.zeroize();
            *text = lower;
        }
        Some(Self { status, retry_after, texts })
    }

    /// The refusal of one item of a batch, by its text.
    pub(super) fn of_item(text: &str) -> Self {
        Self { status: 400, retry_after: None, texts: vec![text.to_lowercase()] }
    }

    /// The refusal that a status of `sys/health` stands for.
    pub(super) fn of_health(status: u16) -> Self {
        let texts = if status == 503 { vec!["is sealed".to_owned()] } else { Vec::new() };
        Self { status, retry_after: None, texts }
    }

    /// Whether it gives no reason at all.
    pub(super) fn is_silent(&self) -> bool {
        self.texts.is_empty()
    }

    /// Whether this node of the cluster does not have a key version yet.
    pub(super) fn is_about_a_new_version(&self) -> bool {
        self.says_any(&["version is too new", "higher than the latest key version"])
    }

    /// Whether a failure of the keeper's own repeats itself when the same is sent again.
    pub(super) fn is_permanent(&self) -> bool {
        self.says_any(&[
            "does not exist during renewal",
            "unable to get associated_data",
            "missing role_id",
            "past the max ttl",
        ])
    }

    /// Whether the cluster has no leader that this node knows of: an election, most often.
    pub(super) fn knows_no_leader(&self) -> bool {
        self.says_any(&["active cluster node not found", "no active vault instance found"])
    }

    /// Whether the node does not serve at all, whatever its status: it is sealed, a
    /// disaster-recovery secondary, a read-only secondary or a standby. That is an outage of the
    /// node, and no answer to what was asked.
    pub(super) fn is_about_the_node(&self) -> bool {
        matches!(self.status, 472 | 473 | 501)
            || self.knows_no_leader()
            || self.says_any(&[
                "is sealed",
                "dr secondary",
                "disaster recovery",
                "readonly storage",
                "in standby mode",
                "recovery mode",
                "not yet initialized",
            ])
    }

    /// Whether the keeper recognised the ciphertext as one that it cannot unwrap.
    ///
    /// "failed to decrypt with external key" says so of every failure of the keeper behind this one,
    /// its outages included; what that keeper said follows.
    pub(super) fn rejects_the_ciphertext(&self) -> bool {
        const BY_ITSELF: [&str; 3] =
            ["failed to decrypt", "unable to decrypt", "decryption failed"];
        const OF_PKCS11: &str = "encrypted_data_invalid";
        self.status == 400
            && (self.says_any(&["authentication failed", "invalid ciphertext", OF_PKCS11])
                || (self.says_any(&BY_ITSELF) && !self.says("with external key")))
    }

    /// Whether the keeper looked at the pair of role ID and secret ID and does not accept it.
    /// Refusals of this kind, and no others, count towards the lock of a role.
    pub(super) fn refuses_the_pair(&self) -> bool {
        self.status == 400
            && !self.says("cidr")
            && self.says_any(&[
                "invalid role or secret id",
                "invalid role id",
                "invalid role_id",
                "invalid secret id",
                "invalid secret_id",
            ])
    }

    /// Whether the keeper says that a wrapping token was used already or has expired.
    pub(super) fn refuses_the_wrapping_token(&self) -> bool {
        matches!(self.status, 400 | 403)
            && self.says_any(&[
                "wrapping token is not valid or does not exist",
                "wrapping token was used",
                "bad wrapping token",
            ])
    }

    /// Whether the token itself was refused, as opposed to a policy that refuses a good one:
    /// servers wrap the latter in an error list.
    pub(super) fn is_dead_token(&self) -> bool {
        self.status == 403
            && (self.says("invalid token") || self.texts.iter().any(|t| t == "permission denied"))
    }

    fn says(&self, text: &str) -> bool {
        self.texts.iter().any(|said| said.contains(text))
    }

    fn says_any(&self, texts: &[&str]) -> bool {
        texts.iter().any(|text| self.says(text))
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
