//! What a refusal means, in the words of the domain.

use super::{Asked, Refusal};
use crate::domain::error::{Code, KmsError};

impl Refusal {
    /// The error of the domain for this refusal.
    pub(in crate::adapters::vault) fn into_error(self, asked: Asked<'_>) -> KmsError {
        match (self.status, asked) {
            (400..=404, Asked::License) => enterprise_required(),
            (400, Asked::Login(mount)) => self.login_refused(mount),
            (403, Asked::Login(mount)) => KmsError::new(
                Code::LoginRefused,
                format!(
                    "auth/{mount} refuses to log in: locked after failed logins, or no such mount"
                ),
                "check --auth-mount and --vault-auth-namespace; a lock ends 15 minutes after the last failure",
            ),
            (500, Asked::Renew) if self.says("does not exist during renewal") => KmsError::new(
                Code::LoginRefused,
                "the token's role does not exist any more",
                "create the AppRole role again",
            ),
            (500, Asked::Renew) if self.says("past the max ttl") => not_renewable(),
            (400..=403, Asked::Renew) => not_renewable(),
            (400, asked) => self.bad_request(asked),
            (403, asked) => denied(asked),
            (404, asked) => self.not_found(asked),
            (status, _) => self.by_status(status),
        }
    }

    fn login_refused(&self, mount: &str) -> KmsError {
        if self.says("http request to an https server") {
            return plain_http();
        }
        if self.says("cidr") {
            return KmsError::new(
                Code::LoginRefused,
                format!("auth/{mount} does not accept a login from this node's address"),
                "extend the CIDR list of the role or of the secret ID",
            );
        }
        KmsError::new(
            Code::LoginRefused,
            format!("auth/{mount} knows no such pair of role ID and secret ID"),
            "write a new secret ID to the file of --approle-secret-id-path, or correct --approle-role-id",
        )
    }

    fn bad_request(&self, asked: Asked<'_>) -> KmsError {
        let any = |texts: &[&str]| texts.iter().any(|text| self.says(text));
        if self.is_about_a_new_version() {
            KmsError::new(
                Code::VersionNotYet,
                "this node of the keeper does not have the key version yet",
                "wait; if it lasts, the key was rolled back: restore its newest versions",
            )
        } else if any(&["too old", "less than the minimum encryption", "no such key version"]) {
            KmsError::new(
                Code::VersionRetired,
                "the keeper's minimum versions exclude this key version",
                "lower min_decryption_version (or min_encryption_version) of the key",
            )
        } else if any(&["encryption key not found"]) {
            key_missing(asked)
        } else if any(&[
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
        } else if self.says("http request to an https server") {
            plain_http()
        } else if matches!(asked, Asked::Unwrap(_)) {
            KmsError::new(
                Code::CiphertextRejected,
                "the keeper does not recognise the ciphertext under its key id and annotations",
                "the stored object was changed or is of another key; restore it from a backup",
            )
        } else {
            self.by_status(400)
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
                "the keeper has nothing mounted there",
                "correct --vault-key-path (--transit-mount) or --auth-mount",
            );
        }
        key_missing(asked)
    }

    /// What the status alone says, whatever was asked.
    pub(in crate::adapters::vault) fn error_of_status(&self) -> KmsError {
        self.by_status(self.status)
    }

    fn by_status(&self, status: u16) -> KmsError {
        match status {
            307 | 308 => KmsError::new(
                Code::KeeperFailed,
                "the server is a standby that does not forward, and redirects elsewhere",
                "name the active node in --vault-address as the cluster does (api_addr), or a load balancer",
            ),
            412 => KmsError::new(
                Code::KeeperFailed,
                "the server has not caught up with the cluster",
                "wait; if it lasts, check replication",
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
            501 => sealed("uninitialised"),
            472 => sealed("a disaster-recovery secondary"),
            473 => sealed("a performance standby that does not forward"),
            503 if self.says("sealed") => sealed("sealed"),
            500..=599 => KmsError::new(
                Code::KeeperFailed,
                format!("the keeper answered with status {status}"),
                "look into the keeper's log and at what stands in front of it",
            ),
            _ => KmsError::new(
                Code::KeeperAnswer,
                format!("the keeper refused with status {status} and no reason that is known here"),
                "look into the keeper's audit log; check what stands in front of it",
            ),
        }
    }

    fn wait_asked(&self) -> String {
        self.retry_after.map_or_else(String::new, |wait| format!(" for {} s", wait.as_secs()))
    }
}

/// The server is not Vault Enterprise, and `--require-enterprise` is set.
pub(in crate::adapters::vault) fn enterprise_required() -> KmsError {
    KmsError::new(
        Code::EnterpriseRequired,
        "the server shows no Vault Enterprise licence",
        "unset --require-enterprise, or let the policy read sys/license/status",
    )
}

fn denied(asked: Asked<'_>) -> KmsError {
    let (what, path, capability) = match asked {
        Asked::Describe(path) => ("reading the key", path, "read"),
        Asked::Wrap(path) => ("encrypting", path, "update"),
        Asked::Unwrap(path) => ("decrypting", path, "update"),
        Asked::Capabilities => ("asking for them", "sys/capabilities-self", "update"),
        Asked::Login(_) | Asked::Renew | Asked::License => ("the request", "its path", "read"),
    };
    KmsError::new(
        Code::PermissionDenied,
        format!("the keeper's policy does not allow {what}"),
        format!(
            "grant {capability} on {path} (and check that the key exists: a missing one looks alike)"
        ),
    )
}

fn not_renewable() -> KmsError {
    KmsError::new(
        Code::PermissionDenied,
        "the token cannot be renewed",
        "nothing: a new login follows",
    )
}

fn key_missing(asked: Asked<'_>) -> KmsError {
    let path = match asked {
        Asked::Describe(path) | Asked::Wrap(path) | Asked::Unwrap(path) => path,
        Asked::Capabilities | Asked::Login(_) | Asked::Renew | Asked::License => "its path",
    };
    KmsError::new(
        Code::KeyMissing,
        format!("the keeper has no key for {path}"),
        "create it (type aes256-gcm96), or correct --vault-key-path and --vault-namespace",
    )
}

fn plain_http() -> KmsError {
    KmsError::new(
        Code::KeeperUnreachable,
        "the server speaks TLS and was asked in plain HTTP",
        "write https:// in --vault-address",
    )
}

fn sealed(state: &str) -> KmsError {
    KmsError::new(
        Code::KeeperSealed,
        format!("the keeper is {state}"),
        "unseal it, or point --vault-address at a node that serves",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "transit/decrypt/k";

    fn code(status: u16, text: &str, asked: Asked<'_>) -> Code {
        let body = serde_json::json!({ "errors": [text] }).to_string();
        Refusal::new(status, None, None, body.as_bytes()).into_error(asked).code()
    }

    #[test]
    fn transit_refusals_as_servers_word_them() {
        for (status, text, expected) in [
            (400, "cipher: message authentication failed", Code::CiphertextRejected),
            (400, "invalid ciphertext: no prefix", Code::CiphertextRejected),
            (400, "invalid ciphertext: version is too new", Code::VersionNotYet),
            (
                400,
                "ciphertext or signature version is disallowed by policy (too old)",
                Code::VersionRetired,
            ),
            (400, "encryption key not found", Code::KeyMissing),
            (400, "refusing to use soft-deleted key", Code::KeyUnusable),
            (403, "1 error occurred:\n\t* permission denied\n\n", Code::PermissionDenied),
            (404, "no handler for route \"x/y\". route entry not found.", Code::KeyMissing),
            (405, "1 error occurred:\n\t* unsupported operation\n\n", Code::KeeperAnswer),
            (429, "request path \"x\": rate limit quota exceeded", Code::KeeperOverloaded),
            (500, "1 error occurred:\n\t* internal error\n\n", Code::KeeperFailed),
            (501, "", Code::KeeperSealed),
            (503, "Vault is sealed", Code::KeeperSealed),
            (503, "overloaded, try again later", Code::KeeperFailed),
            (307, "", Code::KeeperFailed),
        ] {
            assert_eq!(code(status, text, Asked::Unwrap(PATH)), expected, "{status} {text}");
        }
    }

    #[test]
    fn only_a_pair_that_was_looked_at_counts_towards_a_lock() {
        for (status, text, counts) in [
            (400, "invalid role or secret ID", true),
            (400, "source address \"1.2.3.4\" unauthorized through CIDR restrictions", false),
            (403, "permission denied", false),
            (500, "missing role_id", false),
        ] {
            let body = serde_json::json!({ "errors": [text] }).to_string();
            let refusal = Refusal::new(status, None, None, body.as_bytes());
            assert_eq!(refusal.may_lock_the_role(), counts, "{status} {text}");
        }
    }

    #[test]
    fn a_dead_token_and_a_policy_are_told_apart() {
        let dead = |text: &str| {
            let body = serde_json::json!({ "errors": [text] }).to_string();
            Refusal::new(403, None, None, body.as_bytes()).is_dead_token()
        };
        assert!(dead("permission denied"));
        assert!(dead("2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"));
        assert!(!dead("1 error occurred:\n\t* permission denied\n\n"));
    }

    #[test]
    fn what_is_not_json_goes_by_its_status() {
        let html = b"<html>502 Bad Gateway</html>";
        let error = Refusal::new(502, None, None, html).into_error(Asked::Wrap(PATH));
        assert_eq!(error.code(), Code::KeeperFailed);
    }

    #[test]
    fn no_text_of_the_server_is_repeated() {
        let canary = "invalid secret_id \"canary\"";
        for status in [400, 403, 404, 418, 429, 500, 503] {
            for asked in [Asked::Login("approle"), Asked::Wrap(PATH), Asked::Renew] {
                let body = serde_json::json!({ "errors": [canary] }).to_string();
                let error = Refusal::new(status, None, None, body.as_bytes()).into_error(asked);
                assert!(!error.to_string().contains("canary"), "{error}");
            }
        }
    }
}
