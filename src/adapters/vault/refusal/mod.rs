//! Parses a refusal by the keeper: a JSON body with `errors` as a list of texts. No other body
//! proves anything about data, keys, policies or credentials.
//!
//! The texts are searched for known words and never repeated, because login errors can contain the
//! secret ID itself.

mod login;
mod meaning;

use std::{fmt, time::Duration};

use zeroize::Zeroize as _;

pub(super) use self::meaning::{enterprise_required, plain_http};
use super::{key_path::MountPath, login::method::AuthMethod, wire::Errors};

/// A refusal by the keeper. Its texts may hold secrets.
#[derive(Clone)]
pub(super) struct Refusal {
    /// The HTTP status.
    pub(super) status: u16,
    /// How long the keeper asks to wait.
    pub(super) retry_after: Option<Duration>,
    /// The `errors` of the body, in lower case. May be empty.
    texts: Vec<String>,
}

/// The request that failed. It decides the wording of the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    /// A read of the key's metadata, at this path.
    Describe(&'a str),
    /// A wrap, at this path.
    Wrap(&'a str),
    /// An unwrap, at this path.
    Unwrap(&'a str),
    /// A login.
    Login(LoginAt<'a>),
    /// A renewal or a revocation.
    Renew,
    /// A read of the licence.
    License,
    /// A read of the token's capabilities.
    Capabilities,
    /// A health check of a node.
    Health,
    /// A look-up or an unwrap of a wrapping token.
    Wrapping,
}

/// The method and the mount of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoginAt<'a> {
    pub(super) method: AuthMethod,
    pub(super) mount: &'a MountPath,
}

impl Refusal {
    /// Parses the refusal in `body`. Returns `None` if the keeper did not send the body: it is not
    /// a JSON object with `errors` as a list of texts.
    pub(super) fn read(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Option<Self> {
        let mut texts = serde_json::from_slice::<Errors>(body).ok()?.errors;
        for text in &mut texts {
            let lower = text.to_lowercase();
            text.zeroize();
            *text = lower;
        }
        Some(Self { status, retry_after, texts })
    }

    /// Returns the refusal of one item of a batch with this error text.
    pub(super) fn of_item(text: &str) -> Self {
        Self { status: 400, retry_after: None, texts: vec![text.to_lowercase()] }
    }

    /// Returns the refusal that corresponds to a status of `sys/health`.
    pub(super) fn of_health(status: u16) -> Self {
        let texts = if status == 503 { vec!["is sealed".to_owned()] } else { Vec::new() };
        Self { status, retry_after: None, texts }
    }

    /// Returns whether the refusal gives no reason.
    pub(super) fn is_silent(&self) -> bool {
        self.texts.is_empty()
    }

    /// Returns whether the node has not reached the cluster state that the request names.
    pub(super) fn is_behind(&self) -> bool {
        self.status == 412 || self.status == 429 && self.is_silent()
    }

    /// Returns whether the node does not have the key version yet.
    pub(super) fn is_about_a_new_version(&self) -> bool {
        self.says_any(&["version is too new", "higher than the latest key version"])
    }

    /// Returns whether an internal failure (500) will occur again if the same request is repeated.
    pub(super) fn is_permanent(&self) -> bool {
        self.says_any(&[
            "does not exist during renewal",
            "unable to get associated_data",
            "missing role_id",
            "past the max ttl",
        ]) || self.is_about_the_alias()
            || self.exceeds_a_json_limit()
    }

    /// Returns whether the keeper finds no name for the identity that logs in. It answers with the
    /// status 500.
    pub(super) fn is_about_the_alias(&self) -> bool {
        self.says_any(&["failed to determine alias name", "missing name in alias"])
    }

    /// Returns whether the listener refuses the JSON of the request because it is too large. Vault
    /// answers with the status 500, from 1.21 on.
    pub(super) fn exceeds_a_json_limit(&self) -> bool {
        self.status == 500 && self.says("json") && self.says("exceeds allowed")
    }

    /// Returns whether the node knows no leader of its cluster. Most often that is an election.
    pub(super) fn knows_no_leader(&self) -> bool {
        self.says_any(&["active cluster node not found", "no active vault instance found"])
    }

    /// Returns whether the node serves no requests: it is sealed, a disaster-recovery secondary, a
    /// read-only secondary or a standby. The refusal then is an outage of the node and does not
    /// answer the request, whatever its status is.
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

    /// Returns whether the keeper checked the ciphertext and cannot unwrap it.
    ///
    /// The text "failed to decrypt with external key" is not enough: the keeper sends it for every
    /// failure of the external keeper, also for its outages. The error of the external keeper
    /// follows that text.
    pub(super) fn rejects_the_ciphertext(&self) -> bool {
        const BY_ITSELF: [&str; 3] =
            ["failed to decrypt", "unable to decrypt", "decryption failed"];
        const OF_PKCS11: &str = "encrypted_data_invalid";
        self.status == 400
            && (self.says_any(&["authentication failed", "invalid ciphertext", OF_PKCS11])
                || (self.says_any(&BY_ITSELF) && !self.says("with external key")))
    }

    /// Returns whether the keeper checked the pair of role ID and secret ID and rejected it. Only
    /// refusals of this kind count towards the lock of a role.
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

    /// Returns whether the keeper checked the credential of a login and rejected it: a pair, or a
    /// wrapping token.
    pub(super) fn is_of_the_credential(&self) -> bool {
        self.refuses_the_pair() || self.refuses_the_wrapping_token()
    }

    /// Returns whether the keeper says that a wrapping token was used before or has expired.
    pub(super) fn refuses_the_wrapping_token(&self) -> bool {
        matches!(self.status, 400 | 403)
            && self.says_any(&[
                "wrapping token is not valid or does not exist",
                "wrapping token was used",
                "bad wrapping token",
            ])
    }

    /// Returns whether the keeper refused the token itself. If a policy refuses the request of a
    /// valid token, servers format the text as an error list instead.
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
