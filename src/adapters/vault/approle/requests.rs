//! The requests that log in, renew, unwrap and revoke. They have time of their own
//! (`--login-timeout`), because no caller waits for them.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;
use tokio::sync::oneshot;

use crate::{
    adapters::vault::{
        client::{Answer, At, Call, Failure, Repeat, VaultClient, json, unreadable},
        credentials::{Lease, LoginFailure},
        key_path::{MountPath, Namespace},
        refusal::{Asked, Refusal},
        wire::{Auth, Authenticated},
    },
    domain::{
        error::{Code, KmsError},
        secret::Secret,
    },
    ports::{clock::Clock, telemetry::KeeperOperation},
};

/// One request.
pub(super) struct Request<'a> {
    pub(super) operation: KeeperOperation,
    /// Below `/v1/`, from validated parts.
    pub(super) path: &'a str,
    pub(super) token: Option<&'a Secret>,
    pub(super) body: Option<Bytes>,
    pub(super) repeat: Repeat,
    /// How often `--login-timeout` its answer is awaited: twice where giving up loses something.
    pub(super) patience: u32,
}

/// The way to one auth mount.
pub(super) struct Requests {
    pub(super) client: Arc<VaultClient>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) mount: MountPath,
    pub(super) namespace: Namespace,
    /// The most time for a login, a renewal or an unwrap (`--login-timeout`).
    pub(super) timeout: Duration,
}

impl Requests {
    /// Sends `request` and reads its answer. Logins and unwraps go to the active node.
    pub(super) async fn send(&self, request: Request<'_>) -> Result<Answer, Failure> {
        let deadline = self.clock.now().after(self.timeout.saturating_mul(request.patience));
        let at = match request.operation {
            KeeperOperation::Login => self.client.at_active(deadline).await,
            _ => At::Any,
        };
        let call = Call {
            operation: request.operation,
            method: Method::POST,
            path: request.path,
            at,
            namespace: &self.namespace,
            token: request.token,
            body: request.body,
            deadline,
            repeat: request.repeat,
        };
        self.client.send(call).await.map_err(named)
    }

    /// Logs in with `body`. The answer is awaited in a task of its own: a token that comes after
    /// the time-out, or after this future was dropped, is revoked.
    pub(super) async fn log_in(self: &Arc<Self>, body: Bytes) -> Result<Lease, LoginFailure> {
        let (answer, answered) = oneshot::channel();
        let this = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(Ok(late)) = answer.send(this.ask_for_token(body).await) {
                this.revoke_unused(&late.token).await;
            }
        });
        tokio::select! {
            biased;
            outcome = answered => outcome.unwrap_or_else(|_gone| Err(LoginFailure::Failed(late(self.timeout)))),
            () = self.clock.sleep(self.timeout) => Err(LoginFailure::Failed(late(self.timeout))),
        }
    }

    async fn ask_for_token(&self, body: Bytes) -> Result<Lease, LoginFailure> {
        let path = format!("auth/{}/login", self.mount);
        let request = Request {
            operation: KeeperOperation::Login,
            path: &path,
            token: None,
            body: Some(body),
            repeat: Repeat::Once,
            patience: 2,
        };
        let answer = self.send(request).await.map_err(|failure| {
            let is_refused = matches!(&failure, Failure::Refused(told) if refuses_pair(told));
            let error = failure.into_error(Asked::Login(&self.mount.to_string()));
            if is_refused { LoginFailure::Refused(error) } else { LoginFailure::Failed(error) }
        })?;
        let auth = answer.parse::<Authenticated>().map_err(LoginFailure::Failed)?.auth;
        let lease = lease(&auth).map_err(LoginFailure::Failed)?;
        if auth.num_uses != 0 {
            self.revoke_unused(&lease.token).await;
            return Err(LoginFailure::Failed(KmsError::new(
                Code::LoginRefused,
                format!("the role's tokens end after {} uses", auth.num_uses),
                "set token_num_uses=0 on the role",
            )));
        }
        Ok(lease)
    }

    /// Lengthens the life of `token`.
    pub(super) async fn renew(&self, token: &Secret) -> Result<Lease, KmsError> {
        let answer = self.of_token("auth/token/renew-self", token, Repeat::Freely).await?;
        let lease = lease(&answer.parse::<Authenticated>()?.auth)?;
        // What never expires is not renewed: 0 here is a lease that was capped to its end.
        let ttl = lease.ttl.or(Some(Duration::ZERO));
        Ok(Lease { ttl, ..lease })
    }

    /// Ends `token`.
    pub(super) async fn revoke(&self, token: &Secret) -> Result<(), KmsError> {
        self.of_token("auth/token/revoke-self", token, Repeat::Never).await.map(drop)
    }

    async fn revoke_unused(&self, token: &Secret) {
        if let Err(error) = self.revoke(token).await {
            let (code, cause) = (error.code().as_str(), error.cause());
            tracing::warn!(code, cause, "a token that is not used could not be revoked");
        }
    }

    async fn of_token(
        &self,
        path: &str,
        token: &Secret,
        repeat: Repeat,
    ) -> Result<Answer, KmsError> {
        let body = Some(json(&serde_json::json!({}))?);
        let operation = KeeperOperation::Renew;
        let request = Request { operation, path, token: Some(token), body, repeat, patience: 1 };
        self.send(request).await.map_err(|failure| failure.into_error(Asked::Renew))
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").field("mount", &self.mount).finish_non_exhaustive()
    }
}

/// Whether the keeper looked at a pair of role ID and secret ID and refused it.
fn refuses_pair(refusal: &Refusal) -> bool {
    refusal.may_lock_the_role()
}

/// Names the flag in the error of a request that took too long.
fn named(failure: Failure) -> Failure {
    let name = |error: KmsError| match error.code() {
        Code::KeeperTimeout => KmsError::new(
            Code::KeeperTimeout,
            error.cause().to_owned(),
            format!("{}, or raise --login-timeout", error.remedy()),
        ),
        _ => error,
    };
    match failure {
        Failure::Unsent(error) => Failure::Unsent(name(error)),
        Failure::Lost(error) => Failure::Lost(name(error)),
        refused @ Failure::Refused(_) => refused,
    }
}

fn late(timeout: Duration) -> KmsError {
    KmsError::new(
        Code::KeeperTimeout,
        format!("no answer to a login within {} s (--login-timeout)", timeout.as_secs_f64()),
        "check the keeper's load and the network to it, or raise --login-timeout",
    )
}

fn lease(auth: &Auth) -> Result<Lease, KmsError> {
    // Multi-factor logins answer 200 with an empty token.
    if auth.client_token.is_empty() {
        return Err(KmsError::new(
            Code::LoginRefused,
            "the login gave no token: it asks for a second factor",
            "exempt the role from multi-factor enforcement",
        ));
    }
    if !auth.client_token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(unreadable("the token has characters that no token has"));
    }
    let ttl = (auth.lease_duration > 0).then(|| Duration::from_secs(auth.lease_duration));
    Ok(Lease { token: Secret::new(auth.client_token.clone()), ttl, renewable: auth.renewable })
}
