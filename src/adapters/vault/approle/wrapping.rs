//! Unwrapping a wrapped secret ID (response wrapping): once, and only what a secret-ID endpoint of
//! our auth mount wrapped.

use std::sync::Arc;

use http::Method;

use crate::{
    adapters::vault::{
        client::{Answer, Call, Failure, Repeat, VaultClient, json},
        key_path::{MountPath, Namespace},
        refusal::Asked,
        wire::{Data, SecretIdData, WrappedBody, WrappingData},
    },
    domain::{
        error::{Code, KmsError},
        secret::Secret,
    },
    ports::telemetry::KeeperOperation,
};

/// Unwraps secret IDs of one auth mount.
#[derive(Debug)]
pub(super) struct Unwrapper {
    client: Arc<VaultClient>,
    mount: MountPath,
    namespace: Namespace,
}

impl Unwrapper {
    pub(super) fn new(client: Arc<VaultClient>, mount: MountPath, namespace: Namespace) -> Self {
        Self { client, mount, namespace }
    }

    /// The secret ID that `token` wraps. Uses the token up.
    ///
    /// # Errors
    /// [`Code::WrappingTokenUsed`] for one that is used up, has expired, or whose answer was lost;
    /// [`Code::CredentialUnreadable`] for one that wraps something else, which is left as it is;
    /// and the codes of an outage, which leave it as it is.
    pub(super) async fn unwrap(&self, token: &Secret) -> Result<Secret, KmsError> {
        let asked = WrappedBody { token: token.expose() };
        let looked_up = self.call("sys/wrapping/lookup", None, Some(json(&asked)?), Repeat::Freely);
        let answer = looked_up.await.map_err(used_or)?;
        let path = answer.parse::<Data<WrappingData>>()?.data.creation_path;
        if !is_secret_id_path(&path, &self.namespace, &self.mount) {
            return Err(KmsError::new(
                Code::CredentialUnreadable,
                "--approle-secret-id-path: the wrapping token in it wraps something else than a secret ID of this auth mount",
                "make one with `vault write -wrap-ttl=… -f auth/<mount>/role/<role>/secret-id`; if nobody of you wrote it, look into who did",
            ));
        }
        let unwrapped = self.call("sys/wrapping/unwrap", Some(token), None, Repeat::Never).await;
        let answer = unwrapped.map_err(|failure| match failure {
            Failure::Lost(error) => KmsError::new(
                Code::WrappingTokenUsed,
                format!("the answer to unwrapping the secret ID was lost ({})", error.cause()),
                "write a new wrapping token to the file of --approle-secret-id-path",
            ),
            failure => used_or(failure),
        })?;
        Ok(Secret::new(std::mem::take(&mut answer.parse::<Data<SecretIdData>>()?.data.secret_id)))
    }

    async fn call(
        &self,
        path: &str,
        token: Option<&Secret>,
        body: Option<bytes::Bytes>,
        repeat: Repeat,
    ) -> Result<Answer, Failure> {
        let deadline = self.client.background_deadline();
        let at = self.client.at_active(deadline).await;
        let call = Call {
            operation: KeeperOperation::Login,
            method: Method::POST,
            path,
            at,
            namespace: &self.namespace,
            token,
            body,
            deadline,
            repeat,
        };
        self.client.send(call).await
    }
}

/// A refusal of the token itself is more than a failed login.
fn used_or(failure: Failure) -> KmsError {
    match failure {
        Failure::Refused(refusal) if matches!(refusal.status, 400 | 403 | 404) => KmsError::new(
            Code::WrappingTokenUsed,
            "the wrapping token of the secret ID was used already, or has expired",
            "if none of you used it, destroy the role's secret IDs; then write a new wrapping token to the file of --approle-secret-id-path",
        ),
        failure => failure.into_error(Asked::Renew),
    }
}

/// Whether `path`, a `creation_path`, is `auth/<mount>/role/<any>/secret-id` or `…/custom-secret-id`.
/// Some servers put the segments of the namespace before it.
fn is_secret_id_path(path: &str, namespace: &Namespace, mount: &MountPath) -> bool {
    let matches = |path: &str| {
        let role = path.strip_prefix(&format!("auth/{mount}/role/"));
        let (role, end) = role.and_then(|rest| rest.split_once('/')).unwrap_or_default();
        !role.is_empty() && matches!(end, "secret-id" | "custom-secret-id")
    };
    let below = path.strip_prefix(namespace.as_str()).and_then(|rest| rest.strip_prefix('/'));
    matches(path) || below.is_some_and(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_secret_ids_are_recognised_in_every_namespace() {
        for (namespace, mount, path, is_one) in [
            ("", "approle", "auth/approle/role/r/secret-id", true),
            ("", "approle", "auth/approle/role/r/custom-secret-id", true),
            ("", "team/approle", "auth/team/approle/role/r/secret-id", true),
            ("admin", "approle", "admin/auth/approle/role/r/secret-id", true),
            ("admin/team", "approle", "admin/team/auth/approle/role/r/custom-secret-id", true),
            ("admin", "approle", "auth/approle/role/r/secret-id", true),
            // A namespace is a whole segment: `a` is not the beginning of `auth`.
            ("a", "approle", "auth/approle/role/r/secret-id", true),
            ("au", "approle", "auth/approle/role/r/secret-id", true),
            ("auth", "approle", "auth/auth/approle/role/r/secret-id", true),
            ("auth", "approle", "auth/approle/role/r/secret-id", true),
            ("admin", "approle", "other/auth/approle/role/r/secret-id", false),
            ("admin", "approle", "adminauth/approle/role/r/secret-id", false),
            ("", "approle", "admin/auth/approle/role/r/secret-id", false),
            ("", "approle", "auth/other/role/r/secret-id", false),
            ("", "approle", "auth/approle/role//secret-id", false),
            ("", "approle", "auth/approle/role/r/x/secret-id", false),
            ("", "approle", "auth/approle/role/r/secret-id/lookup", false),
            ("", "approle", "auth/approle/role/r/role-id", false),
            ("", "approle", "sys/wrapping/wrap", false),
            ("", "approle", "", false),
        ] {
            let namespace = Namespace::parse(namespace).unwrap();
            let mount = MountPath::parse(mount).unwrap();
            assert_eq!(is_secret_id_path(path, &namespace, &mount), is_one, "{namespace:?} {path}");
        }
    }
}
