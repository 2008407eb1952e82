//! The requests that log in, renew, unwrap and revoke. They have time of their own
//! (`--login-timeout`), because no caller waits for them.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::Method;
use tokio::sync::oneshot;

use crate::{
    adapters::vault::{
        client::{
            CallPolicy, Expected, Failure, Repeat, Request, Target, VaultClient, json, unreadable,
        },
        credentials::{CredentialDigest, Lease, LoginFailure},
        key_path::{MountPath, Namespace},
        refusal::Asked,
        wire::{Auth, Authenticated, Nothing},
    },
    domain::{
        error::{Code, KmsError},
        secret::Secret,
    },
    ports::{clock::Clock, telemetry::KeeperOperation},
};

/// What is asked of an auth mount.
pub(super) struct Ask<'a> {
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
    /// The material that was refused last after its login had been given up, and why.
    pub(super) refused_late: Mutex<Option<(CredentialDigest, KmsError)>>,
}

impl Requests {
    /// Sends what is asked and returns the answer. Logins and unwraps go to the active node.
    pub(super) async fn send<T: Expected>(&self, ask: Ask<'_>) -> Result<T, Failure> {
        let most = self.timeout.saturating_mul(ask.patience);
        let deadline = self.clock.now().after(most);
        let target = match ask.operation {
            KeeperOperation::Login => self.client.at_active(deadline).await,
            _ => Target::Any,
        };
        let policy = CallPolicy {
            target,
            repeat: ask.repeat,
            try_limit: Some(most),
            ..CallPolicy::new(ask.operation, deadline)
        };
        let request = Request {
            method: Method::POST,
            path: ask.path,
            namespace: &self.namespace,
            token: ask.token,
            body: ask.body,
        };
        self.client.send(&request, policy).await.map(|answer| answer.value).map_err(named)
    }

    /// Logs in with `body`, the material of `digest`. The answer is awaited in a task of its own. When
    /// it comes after the time-out, or after this future was dropped, a token is revoked, and a
    /// refusal is the result of the next login with the same material.
    pub(super) async fn log_in(
        self: &Arc<Self>,
        digest: CredentialDigest,
        body: Bytes,
    ) -> Result<Lease, LoginFailure> {
        if let Some((_, error)) = self.refused_late().take_if(|(refused, _)| *refused == digest) {
            return Err(LoginFailure::Refused(error));
        }
        let (answer, answered) = oneshot::channel();
        let this = Arc::clone(self);
        tokio::spawn(async move {
            match answer.send(this.ask_for_token(body).await) {
                Err(Ok(late)) => this.revoke_unused(&late.token).await,
                Err(Err(LoginFailure::Refused(error))) => {
                    *this.refused_late() = Some((digest, error));
                }
                Err(Err(LoginFailure::Failed(_))) | Ok(()) => (),
            }
        });
        tokio::select! {
            biased;
            outcome = answered => outcome.unwrap_or_else(|_gone| Err(LoginFailure::Failed(self.late()))),
            () = self.clock.sleep(self.timeout) => Err(LoginFailure::Failed(self.late())),
        }
    }

    /// The servers that are asked, as errors name them: the first one, and how many there are.
    pub(super) fn keeper(&self) -> String {
        let endpoints = self.client.endpoints();
        let first = endpoints.first().map_or("the keeper", |endpoint| &endpoint.address);
        match endpoints.len() {
            0 | 1 => first.to_owned(),
            all => format!("{first} (the first of {all} addresses)"),
        }
    }

    fn late(&self) -> KmsError {
        let (keeper, timeout) = (self.keeper(), self.timeout.as_secs_f64());
        KmsError::new(
            Code::KeeperTimeout,
            format!("no answer to a login from {keeper} within {timeout} s (--login-timeout)"),
            "check the keeper's load and the network to it, or raise --login-timeout",
        )
    }

    fn refused_late(&self) -> MutexGuard<'_, Option<(CredentialDigest, KmsError)>> {
        self.refused_late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask_for_token(&self, body: Bytes) -> Result<Lease, LoginFailure> {
        let path = format!("auth/{}/login", self.mount);
        let ask = Ask {
            operation: KeeperOperation::Login,
            path: &path,
            token: None,
            body: Some(body),
            repeat: Repeat::Once,
            patience: 2,
        };
        let answer: Authenticated = self.send(ask).await.map_err(|failure| {
            let is_refused =
                matches!(&failure, Failure::Refused(refusal) if refusal.refuses_the_pair());
            let error = failure.into_error(Asked::Login(&self.mount.to_string()));
            if is_refused { LoginFailure::Refused(error) } else { LoginFailure::Failed(error) }
        })?;
        let auth = answer.auth;
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
        let renewed =
            self.of_token::<Authenticated>("auth/token/renew-self", token, Repeat::Freely);
        let lease = lease(&renewed.await?.auth)?;
        // What never expires is not renewed: 0 here is a lease that was capped to its end.
        let ttl = lease.ttl.or(Some(Duration::ZERO));
        Ok(Lease { ttl, ..lease })
    }

    /// Ends `token`.
    pub(super) async fn revoke(&self, token: &Secret) -> Result<(), KmsError> {
        let Nothing = self.of_token("auth/token/revoke-self", token, Repeat::Never).await?;
        Ok(())
    }

    async fn revoke_unused(&self, token: &Secret) {
        if let Err(error) = self.revoke(token).await {
            let (code, cause) = (error.code().as_str(), error.cause());
            tracing::warn!(code, cause, "a token that is not used could not be revoked");
        }
    }

    async fn of_token<T: Expected>(
        &self,
        path: &str,
        token: &Secret,
        repeat: Repeat,
    ) -> Result<T, KmsError> {
        let body = Some(json(&serde_json::json!({}))?);
        let operation = KeeperOperation::Renew;
        let ask = Ask { operation, path, token: Some(token), body, repeat, patience: 1 };
        self.send(ask).await.map_err(|failure| failure.into_error(Asked::Renew))
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").field("mount", &self.mount).finish_non_exhaustive()
    }
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
        other => other,
    }
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
