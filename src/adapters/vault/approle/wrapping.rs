//! Unwrapping a wrapped secret ID (response wrapping): once, and only what a secret-ID endpoint of
//! our auth mount wrapped.

use std::sync::Arc;

use http::Method;

use crate::{
    adapters::vault::{
        client::{Expected, Failure, Policy, Repeat, Request, VaultClient, json},
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
        let body = Some(json(&asked)?);
        let looked_up =
            self.call::<Data<WrappingData>>("sys/wrapping/lookup", None, body, Repeat::Freely);
        let path = looked_up.await.map_err(used_or)?.data.creation_path;
        if !self.is_secret_id_path(&path) {
            return Err(KmsError::new(
                Code::CredentialUnreadable,
                "--approle-secret-id-path: the wrapping token in it wraps something else than a secret ID of this auth mount",
                "make one with `vault write -wrap-ttl=… -f auth/<mount>/role/<role>/secret-id`; if nobody of you wrote it, look into who did",
            ));
        }
        let unwrapped = self.call::<Data<SecretIdData>>(
            "sys/wrapping/unwrap",
            Some(token),
            None,
            Repeat::Never,
        );
        let mut unwrapped = unwrapped.await.map_err(|failure| match failure {
            Failure::Lost(error) => KmsError::new(
                Code::WrappingTokenUsed,
                format!("the answer to unwrapping the secret ID was lost ({})", error.cause()),
                "write a new wrapping token to the file of --approle-secret-id-path",
            ),
            failure => used_or(failure),
        })?;
        Ok(Secret::new(std::mem::take(&mut unwrapped.data.secret_id)))
    }

    /// `auth/<mount>/role/<any>/secret-id`, below the namespace where the server says it with it.
    fn is_secret_id_path(&self, path: &str) -> bool {
        let namespace = self.namespace.as_str();
        let path = match path.strip_prefix(namespace) {
            Some(below) if !namespace.is_empty() => below.trim_start_matches('/'),
            _ => path,
        };
        let role = path
            .strip_prefix(&format!("auth/{}/role/", self.mount))
            .and_then(|rest| rest.strip_suffix("/secret-id"));
        role.is_some_and(|role| !role.is_empty() && !role.contains('/'))
    }

    async fn call<T: Expected>(
        &self,
        path: &str,
        token: Option<&Secret>,
        body: Option<bytes::Bytes>,
        repeat: Repeat,
    ) -> Result<T, Failure> {
        let deadline = self.client.background_deadline();
        let target = self.client.at_active(deadline).await;
        let namespace = &self.namespace;
        let request = Request { method: Method::POST, path, namespace, token, body };
        let policy = Policy { target, repeat, ..Policy::new(KeeperOperation::Login, deadline) };
        self.client.send(&request, policy).await.map(|answer| answer.value)
    }
}

/// A refusal of the token itself is more than a failed login.
fn used_or(failure: Failure) -> KmsError {
    match failure {
        Failure::Refused(refusal) if refusal.refuses_the_wrapping_token() => KmsError::new(
            Code::WrappingTokenUsed,
            "the wrapping token of the secret ID was used already, or has expired",
            "if none of you used it, destroy the role's secret IDs; then write a new wrapping token to the file of --approle-secret-id-path",
        ),
        failure => failure.into_error(Asked::Renew),
    }
}
