//! Finds out whether an auth mount exists. Servers refuse a login at a missing mount and the login of
//! a locked role with the same status and text.

use std::time::Duration;

use http::Method;

use super::{CHECK_MAX, VaultClient, nodes::Wanted};
use crate::adapters::vault::{
    key_path::{MountPath, Namespace},
    refusal::Refusal,
    servers::{Failure, Request},
    wire::Nothing,
};

impl VaultClient {
    /// Returns whether an auth method is mounted at `mount`. Sends a read of its login path without
    /// credentials, so the server counts no failed login. `None` if no server answers.
    pub(in crate::adapters::vault) async fn has_login_at(
        &self,
        mount: &MountPath,
        namespace: &Namespace,
    ) -> Option<bool> {
        let now = self.clock.now();
        let endpoint = self.nodes(|nodes| nodes.choose(Wanted::Any(&[]), now)).ok()?;
        let path = format!("auth/{mount}/login");
        let request =
            Request { method: Method::GET, path: &path, namespace, token: None, body: None };
        let limit = self.servers.request_timeout().min(CHECK_MAX);
        match self
            .servers
            .exchange::<Nothing>(endpoint, &request, None, limit, Duration::ZERO)
            .await
        {
            Ok(_) => Some(true),
            Err(Failure::Refused(refusal)) => proves_a_mount(&refusal),
            Err(_) => None,
        }
    }
}

/// Returns whether the refusal of such a read comes from an auth method. Only a request to a path
/// without a mount needs a token, so only such a request is refused with 403.
fn proves_a_mount(refusal: &Refusal) -> Option<bool> {
    match refusal.status {
        _ if refusal.is_about_the_node() => None,
        403 | 404 => Some(false),
        400 | 405 | 500 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_mount_wants_a_token() {
        for (status, text, expected) in [
            (403, "permission denied", Some(false)),
            (404, "no handler for route", Some(false)),
            (405, "unsupported operation", Some(true)),
            (500, "failed to determine alias name from login request", Some(true)),
            (500, "missing role_id", Some(true)),
            (503, "Vault is sealed", None),
            (429, "rate limit quota exceeded", None),
        ] {
            let body = serde_json::json!({ "errors": [text] }).to_string();
            let refusal = Refusal::read(status, None, body.as_bytes()).unwrap();
            assert_eq!(proves_a_mount(&refusal), expected, "{status} {text}");
        }
    }
}
