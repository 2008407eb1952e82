//! Converts a refusal into an error of the domain.

use super::{Asked, Refusal, login::without_alias};
use crate::{
    adapters::vault::{address::VaultAddress, vocabulary::ENTERPRISE_REQUIRED},
    domain::error::{Code, KmsError},
};

impl Refusal {
    /// Returns the domain error for this refusal of the request `asked`.
    pub(in crate::adapters::vault) fn into_error(self, asked: Asked<'_>) -> KmsError {
        if self.is_about_the_node() {
            return self.node_error();
        }
        match (self.status, asked) {
            (_, Asked::Health | Asked::Wrapping) => self.error_of_status(),
            (400..=404, Asked::License) => enterprise_required(),
            (400 | 403, Asked::Login(at)) => self.login_refused(at),
            (500, Asked::Login(at)) if self.is_about_the_alias() => without_alias(at),
            (500, _) if self.exceeds_a_json_limit() => KmsError::new(
                Code::KeeperFailed,
                "the listener of the keeper refuses the JSON of the request as too large",
                "raise max_json_string_value_length, max_json_array_element_count or max_json_depth of the listener",
            ),
            (500, Asked::Renew) if self.says("does not exist during renewal") => KmsError::new(
                Code::LoginRefused,
                "the role of the token no longer exists",
                "create the role of the login again",
            ),
            (500, Asked::Renew) if self.says("past the max ttl") => not_renewable(),
            (400..=403, Asked::Renew) => not_renewable(),
            (400, asked) => self.bad_request(asked),
            (403, _) if self.is_dead_token() => token_refused(),
            (403, asked) => denied(asked),
            (404, asked) => self.not_found(asked),
            _ => self.error_of_status(),
        }
    }

    fn bad_request(&self, asked: Asked<'_>) -> KmsError {
        if self.is_about_a_new_version() {
            KmsError::new(
                Code::VersionNotYet,
                "this node of the keeper does not have the key version yet",
                "wait; if this lasts, the key was rolled back: restore its newest versions",
            )
        } else if self.says_any(&[
            "too old",
            "less than the minimum encryption",
            "no such key version",
        ]) {
            KmsError::new(
                Code::VersionRetired,
                "the keeper's minimum versions exclude this key version",
                "lower min_decryption_version (or min_encryption_version) of the key",
            )
        } else if self.says("encryption key not found") {
            key_missing(asked)
        } else if self.says_any(&[
            "soft-deleted",
            "missing 'context'",
            "non-aead",
            "not supported for key type",
        ]) {
            KmsError::new(
                Code::KeyUnusable,
                "the key's type or state does not allow this",
                "use an AEAD key such as aes256-gcm96 that is not derived and not deleted",
            )
        } else if matches!(asked, Asked::Unwrap(_)) && self.rejects_the_ciphertext() {
            KmsError::new(
                Code::CiphertextRejected,
                "the keeper does not recognise the ciphertext under its key id and annotations",
                "the stored object was changed or is of another key; restore it from a backup",
            )
        } else if self.says("with external key") {
            KmsError::new(
                Code::KeeperFailed,
                "the keeper could not use the external key that this key refers to",
                "see the keeper's log for the answer of its KMS or HSM",
            )
        } else {
            self.error_of_status()
        }
    }

    fn not_found(&self, asked: Asked<'_>) -> KmsError {
        if self.says("namespace not found") {
            return KmsError::new(
                Code::KeyMissing,
                "the keeper has no such namespace",
                "correct --vault-namespace or --vault-auth-namespace",
            );
        }
        if matches!(asked, Asked::Login(_) | Asked::Renew) || self.says("no handler for route") {
            return KmsError::new(
                Code::KeyMissing,
                "the keeper has no mount at this path",
                "correct --vault-key-path (--transit-mount) or --auth-mount",
            );
        }
        key_missing(asked)
    }

    /// Returns the error for the state of the node, for any request.
    pub(in crate::adapters::vault) fn node_error(&self) -> KmsError {
        if self.knows_no_leader() {
            return KmsError::new(
                Code::KeeperFailed,
                "the node of the keeper knows no active node, most often because of an election",
                "wait; if this lasts, see the keeper's log",
            );
        }
        let state = match self.status {
            472 => "a disaster-recovery secondary",
            473 => "a performance standby that does not forward",
            501 => "uninitialised",
            _ if self.says_any(&["dr secondary", "disaster recovery"]) => {
                "a disaster-recovery secondary"
            }
            _ if self.says("readonly storage") => "a secondary that cannot write",
            _ if self.says("in standby mode") => "a standby",
            _ if self.says("recovery mode") => "in recovery mode",
            _ if self.says("not yet initialized") => "uninitialised",
            _ if self.says("is sealed") => "sealed",
            _ => return self.error_of_status(),
        };
        let remedy = if state.contains("secondary") {
            "promote it, or point --vault-address at the primary"
        } else {
            "unseal it, or point --vault-address at a node that serves"
        };
        KmsError::new(Code::KeeperSealed, format!("the keeper is {state}"), remedy)
    }

    /// Returns the error for the status alone, for any request.
    pub(in crate::adapters::vault) fn error_of_status(&self) -> KmsError {
        match self.status {
            // An OpenBao node that lags answers 429, the status of a quota, without a text.
            412 | 429 if self.is_behind() => KmsError::new(
                Code::KeeperFailed,
                "the server has not caught up with the cluster",
                "wait; if this lasts, check replication",
            ),
            413 => KmsError::new(
                Code::InvalidRequest,
                "the request is too large for the keeper",
                "send a DEK seed of 32 bytes",
            ),
            429 => KmsError::new(
                Code::KeeperOverloaded,
                format!("the keeper is over a quota{}", self.wait_asked()),
                "raise the rate-limit quota of the mount",
            ),
            status @ 500..=599 => KmsError::new(
                Code::KeeperFailed,
                format!("the keeper answered with status {status}"),
                "see the keeper's log, and check proxies and load balancers in front of the keeper",
            ),
            status => KmsError::new(
                Code::KeeperAnswer,
                format!("the keeper refused with status {status} for an unknown reason"),
                "see the keeper's audit log, and check proxies and load balancers in front of the keeper",
            ),
        }
    }

    fn wait_asked(&self) -> String {
        self.retry_after.map_or_else(String::new, |wait| format!(" for {} s", wait.as_secs()))
    }
}

/// Returns the error for a server without a Vault Enterprise licence while `--require-enterprise`
/// is set.
pub(in crate::adapters::vault) fn enterprise_required() -> KmsError {
    KmsError::new(
        ENTERPRISE_REQUIRED,
        "the server shows no Vault Enterprise licence",
        "unset --require-enterprise, or let the policy read sys/license/status",
    )
}

fn denied(asked: Asked<'_>) -> KmsError {
    // The request fields that a policy rule with `allowed_parameters` must allow.
    let (what, path, capability, fields) = match asked {
        Asked::Describe(path) => ("reading the key", path, "read", None),
        Asked::Wrap(path) => {
            ("encrypting", path, "update", Some("plaintext, key_version and associated_data"))
        }
        Asked::Unwrap(path) => {
            ("decrypting", path, "update", Some("ciphertext, associated_data and batch_input"))
        }
        Asked::Capabilities => ("asking for them", "sys/capabilities-self", "update", None),
        Asked::Login(_) | Asked::Renew | Asked::License | Asked::Health | Asked::Wrapping => {
            ("the request", "its path", "read", None)
        }
    };
    let fields = fields.map_or_else(String::new, |fields| {
        format!(", and a rule with allowed_parameters or denied_parameters must allow {fields}")
    });
    KmsError::new(
        Code::PermissionDenied,
        format!("the keeper's policies do not allow {what}"),
        format!(
            "the policy must have {capability} on {path}{fields} (a missing key gives the same answer: check that it exists)"
        ),
    )
}

/// Returns the error for a refused token. It is an outage and not `permission-denied`, because the
/// keeper did not check the policies.
fn token_refused() -> KmsError {
    KmsError::new(
        Code::KeeperFailed,
        "the keeper refused a token that it gave, and the one that replaced it",
        "a new login follows; if this lasts, check the token_bound_cidrs of the role",
    )
}

fn not_renewable() -> KmsError {
    KmsError::new(
        Code::PermissionDenied,
        "the token cannot be renewed",
        "no action is needed: a new login follows",
    )
}

fn key_missing(asked: Asked<'_>) -> KmsError {
    let path = match asked {
        Asked::Describe(path) | Asked::Wrap(path) | Asked::Unwrap(path) => path,
        Asked::Capabilities
        | Asked::Login(_)
        | Asked::Renew
        | Asked::License
        | Asked::Health
        | Asked::Wrapping => "its path",
    };
    KmsError::new(
        Code::KeyMissing,
        format!("the keeper has no key for {path}"),
        "create it (type aes256-gcm96), or correct --vault-key-path and --vault-namespace",
    )
}

/// Returns the error for plain HTTP that was sent to a TLS port.
pub(in crate::adapters::vault) fn plain_http(address: &VaultAddress) -> KmsError {
    let (cause, remedy) = if address.is_tls() {
        // The request was sent over TLS, so something in between has forwarded it without TLS.
        (
            format!(
                "the proxy or balancer at {address} sends plain HTTP to a server that speaks TLS"
            ),
            "let it speak TLS to the server, or pass the connection through",
        )
    } else {
        (
            format!("{address} speaks TLS, but the request was plain HTTP"),
            "write https:// in --vault-address",
        )
    };
    KmsError::new(Code::KeeperUnreachable, cause, remedy)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::adapters::vault::{
        key_path::MountPath, login::method::AuthMethod, refusal::LoginAt,
    };

    const PATH: &str = "transit/decrypt/k";

    fn login() -> Asked<'static> {
        static MOUNT: LazyLock<MountPath> = LazyLock::new(|| MountPath::parse("approle").unwrap());
        Asked::Login(LoginAt { method: AuthMethod::AppRole, mount: &MOUNT })
    }

    fn code(status: u16, text: &str, asked: Asked<'_>) -> Code {
        let body = serde_json::json!({ "errors": [text] }).to_string();
        Refusal::read(status, None, body.as_bytes()).unwrap().into_error(asked).code()
    }

    #[test]
    fn maps_refusals_of_transit_to_codes() {
        for (status, text, expected) in [
            (400, "cipher: message authentication failed", Code::CiphertextRejected),
            (400, "invalid ciphertext: no prefix", Code::CiphertextRejected),
            (
                400,
                "failed to decrypt with external key: cipher: message authentication failed",
                Code::CiphertextRejected,
            ),
            (
                400,
                "failed to decrypt with external key: dial tcp: connection refused",
                Code::KeeperFailed,
            ),
            (400, "invalid ciphertext: version is too new", Code::VersionNotYet),
            (
                400,
                "ciphertext or signature version is disallowed by policy (too old)",
                Code::VersionRetired,
            ),
            (400, "encryption key not found", Code::KeyMissing),
            (400, "refusing to use soft-deleted key", Code::KeyUnusable),
            (403, "1 error occurred:\n\t* permission denied\n\n", Code::PermissionDenied),
            (403, "permission denied", Code::KeeperFailed),
            (404, "no handler for route \"x/y\". route entry not found.", Code::KeyMissing),
            (405, "1 error occurred:\n\t* unsupported operation\n\n", Code::KeeperAnswer),
            (429, "request path \"x\": rate limit quota exceeded", Code::KeeperOverloaded),
            (500, "1 error occurred:\n\t* internal error\n\n", Code::KeeperFailed),
            (501, "", Code::KeeperSealed),
            (503, "Vault is sealed", Code::KeeperSealed),
            (503, "overloaded, try again later", Code::KeeperFailed),
        ] {
            assert_eq!(code(status, text, Asked::Unwrap(PATH)), expected, "{status} {text}");
        }
    }

    #[test]
    fn a_login_without_a_name_is_refused_and_not_an_outage() {
        for text in ["failed to determine alias name from login request", "missing name in alias"] {
            assert_eq!(code(500, text, login()), Code::LoginRefused, "{text}");
        }
    }

    /// Regression: these were once taken for a refusal of the ciphertext, of the login or by a
    /// policy.
    #[test]
    fn the_state_of_the_node_is_an_outage_for_every_request() {
        for (status, text) in [
            (400, "path disabled in replication DR secondary mode"),
            (400, "operation not supported on a DR secondary"),
            (400, "Vault is sealed"),
            (403, "Vault is sealed"),
            (503, "namespace is sealed"),
            (500, "cannot write to readonly storage"),
            (500, "Vault is in standby mode"),
            (500, "local node not active but active cluster node not found"),
            (472, ""),
            (473, ""),
            (501, ""),
        ] {
            for asked in [login(), Asked::Unwrap(PATH), Asked::Renew, Asked::License] {
                assert!(code(status, text, asked).is_outage(), "{status} {text} {asked:?}");
            }
        }
    }

    /// The remedy must not name a backup if the keeper did not check the ciphertext.
    #[test]
    fn an_unknown_400_to_an_unwrap_does_not_blame_the_ciphertext() {
        for text in ["something new", "missing ciphertext to decrypt"] {
            assert_eq!(code(400, text, Asked::Unwrap(PATH)), Code::KeeperAnswer, "{text}");
        }
    }

    #[test]
    fn only_a_checked_pair_counts_towards_the_lock_of_a_role() {
        for (status, text, counts) in [
            (400, "invalid role or secret ID", true),
            (400, "invalid secret_id \"x\"", true),
            (400, "invalid role_id", true),
            (400, "source address \"1.2.3.4\" unauthorized through CIDR restrictions", false),
            (400, "path disabled in replication DR secondary mode", false),
            (400, "missing secret_id", false),
            (403, "permission denied", false),
            (500, "missing role_id", false),
        ] {
            let body = serde_json::json!({ "errors": [text] }).to_string();
            let refusal = Refusal::read(status, None, body.as_bytes()).unwrap();
            assert_eq!(refusal.refuses_the_pair(), counts, "{status} {text}");
        }
    }

    #[test]
    fn distinguishes_a_dead_token_from_a_policy() {
        let dead = |text: &str| {
            let body = serde_json::json!({ "errors": [text] }).to_string();
            Refusal::read(403, None, body.as_bytes()).unwrap().is_dead_token()
        };
        assert!(dead("permission denied"));
        assert!(dead("2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"));
        assert!(!dead("1 error occurred:\n\t* permission denied\n\n"));
    }

    #[test]
    fn accepts_only_json_with_a_list_of_errors() {
        for body in [
            "",
            "<html>403 Forbidden</html>",
            "404 page not found",
            "{}",
            r#"{"errors":null}"#,
            r#"{"errors":[{"code":403}]}"#,
            r#"{"errors":"denied"}"#,
            r#"{"message":"denied"}"#,
            r#"["denied"]"#,
        ] {
            assert!(Refusal::read(403, None, body.as_bytes()).is_none(), "{body}");
        }
        for body in [r#"{"errors":[]}"#, r#"{"errors":["denied"],"data":null}"#] {
            assert!(Refusal::read(403, None, body.as_bytes()).is_some(), "{body}");
        }
    }

    #[test]
    fn repeats_no_text_of_the_server() {
        for status in [400, 403, 404, 418, 429, 500, 503] {
            for asked in [login(), Asked::Wrap(PATH), Asked::Renew] {
                let body = r#"{"errors":["invalid secret_id canary"]}"#;
                let error = Refusal::read(status, None, body.as_bytes()).unwrap().into_error(asked);
                assert!(!error.to_string().contains("canary"), "{error}");
            }
        }
    }
}
