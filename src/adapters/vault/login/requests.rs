//! Sends the requests that log in, renew, unwrap and revoke. Their time limit is `--login-timeout`
//! and not the deadline of a call, because no caller waits for them.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::{
    method::AuthMethod,
    port::{CredentialDigest, Lease, LoginFailure, Tokens},
};
use crate::{
    adapters::vault::{
        client::{CallPolicy, Repeat, Target, VaultClient},
        key_path::{MountPath, Namespace},
        refusal::{Asked, LoginAt},
        servers::{Expected, Failure, Request, json, unreadable},
        wire::{Auth, Authenticated, Nothing},
    },
    domain::{
        error::{Code, KmsError},
        secret::Secret,
        time::UnixTime,
    },
    ports::{
        clock::Clock,
        telemetry::{Expiring, KeeperOperation},
    },
};

/// One request of a login.
pub(super) struct Ask<'a> {
    pub(super) operation: KeeperOperation,
    pub(super) method: Method,
    /// The path below `/v1/`, made of validated parts.
    pub(super) path: &'a str,
    pub(super) token: Option<&'a Secret>,
    pub(super) body: Option<Bytes>,
    pub(super) repeat: Repeat,
    /// Whether giving up loses a token or a secret ID. Then an answer may come as late as twice
    /// `--login-timeout`. The request is not sent after `--login-timeout`.
    pub(super) loses_a_secret: bool,
}

/// Sends the requests of one auth mount.
pub(super) struct Requests {
    /// The method of the login, for errors.
    pub(super) method: AuthMethod,
    pub(super) client: Arc<VaultClient>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) mount: MountPath,
    pub(super) namespace: Namespace,
    /// How long a login, a renewal or an unwrap may be sent (`--login-timeout`).
    pub(super) timeout: Duration,
    /// Whether a wrapping token may be used up. See [`LoginFiles::unwraps`].
    ///
    /// [`LoginFiles::unwraps`]: super::credential_file::LoginFiles::unwraps
    pub(super) unwraps: bool,
    /// The number of logins that gave a token.
    pub(super) granted: AtomicU64,
    /// The last material whose refusal arrived after its login was given up, and the error.
    pub(super) refused_late: Mutex<Option<(CredentialDigest, KmsError)>>,
    /// The logins and unwraps that run, also those whose result nobody waits for.
    pub(super) running: TaskTracker,
}

impl Requests {
    /// Sends a request and returns the answer. Sends logins and unwraps to the active node.
    pub(super) async fn send<T: Expected>(&self, ask: Ask<'_>) -> Result<T, Failure> {
        let deadline = self.clock.now().after(self.timeout);
        let waits_longer = if ask.loses_a_secret { self.timeout } else { Duration::ZERO };
        let target = match ask.operation {
            KeeperOperation::Login => self.client.at_active(deadline).await,
            _ => Target::Any,
        };
        let policy = CallPolicy {
            target,
            repeat: ask.repeat,
            waits_longer,
            try_limit: Some(self.timeout),
            ..CallPolicy::new(ask.operation, deadline)
        };
        let request = Request {
            method: ask.method,
            path: ask.path,
            namespace: &self.namespace,
            token: ask.token,
            body: ask.body,
        };
        self.client
            .send(&request, policy)
            .await
            .map(|answer| answer.value)
            .map_err(with_timeout_flag)
    }

    /// Logs in with `body`, which is made of the material with this `digest`. A separate task sends
    /// it, not after the time-out, and waits for the answer. If the answer arrives after the
    /// time-out, or after this future was dropped, that task revokes the token, unless the process ends
    /// first (see [`Tokens::settled`]): then the token stays until its lease ends. The task keeps a
    /// refusal as the result of the next login with the same material, unless a login has succeeded
    /// since.
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
        let granted = self.granted.load(Ordering::Relaxed);
        self.running.spawn(async move {
            match answer.send(this.ask_for_token(body).await) {
                Err(Ok(late)) => this.revoke_unused(&late.token).await,
                // A login that succeeded in the meantime is newer than this refusal.
                Err(Err(LoginFailure::Refused(error)))
                    if this.granted.load(Ordering::Relaxed) == granted =>
                {
                    *this.refused_late() = Some((digest, error));
                }
                Err(Err(_)) | Ok(()) => (),
            }
        });
        let outcome = tokio::select! {
            biased;
            outcome = answered => outcome.unwrap_or_else(|_gone| Err(LoginFailure::Failed(self.late()))),
            () = self.clock.sleep(self.timeout) => Err(LoginFailure::Failed(self.late())),
        };
        if outcome.is_ok() {
            self.granted.fetch_add(1, Ordering::Relaxed);
            *self.refused_late() = None;
        }
        outcome
    }

    /// Runs `unwrap` to its end, also if this future is dropped: its answer comes only once.
    ///
    /// # Errors
    /// Those of `unwrap`.
    pub(super) async fn unwrap_to_its_end<T: Send + 'static>(
        &self,
        unwrap: impl Future<Output = Result<T, LoginFailure>> + Send + 'static,
    ) -> Result<T, LoginFailure> {
        self.running.spawn(unwrap).await.unwrap_or_else(|_cancelled| {
            let cause = "the unwrap of the credential was cancelled";
            Err(LoginFailure::Failed(KmsError::new(Code::Internal, cause, "report this as a bug")))
        })
    }

    /// Reports to telemetry when `what` expires. `None` means that the time is not known.
    pub(super) fn expires(&self, what: Expiring, at: Option<UnixTime>) {
        self.client.servers().expires(what, at);
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
            method: Method::POST,
            path: &path,
            token: None,
            body: Some(body),
            repeat: Repeat::Once,
            loses_a_secret: true,
        };
        let answer: Authenticated = match self.send(ask).await {
            Ok(answer) => answer,
            Err(failure) => return Err(self.login_failure(failure).await),
        };
        let auth = answer.auth;
        let lease = lease(&auth).map_err(LoginFailure::Failed)?;
        if auth.num_uses != 0 {
            self.revoke_unused(&lease.token).await;
            return Err(LoginFailure::Failed(KmsError::new(
                Code::LoginRefused,
                format!("the role's tokens expire after {} uses", auth.num_uses),
                "set token_num_uses=0 on the role",
            )));
        }
        Ok(lease)
    }

    /// Returns why a login failed. A refusal with 403 has no reason, so this asks whether the mount
    /// exists.
    async fn login_failure(&self, failure: Failure) -> LoginFailure {
        let (is_refused, is_silent) = match &failure {
            Failure::Refused(refusal) => (refusal.refuses_the_pair(), refusal.status == 403),
            _ => (false, false),
        };
        let at = LoginAt { method: self.method, mount: &self.mount };
        let error = failure.into_error(Asked::Login(at));
        if is_refused {
            return LoginFailure::Refused(error);
        }
        if !is_silent || error.code() != Code::LoginRefused {
            return LoginFailure::Failed(error);
        }
        LoginFailure::Failed(match self.client.has_login_at(&self.mount, &self.namespace).await {
            Some(true) if self.method == AuthMethod::AppRole => locked(&self.mount),
            Some(false) => no_mount(&self.mount),
            _ => error,
        })
    }

    async fn revoke_unused(&self, token: &Secret) {
        if let Err(error) = self.revoke(token).await {
            let (code, cause) = (error.code().as_str(), error.cause());
            tracing::warn!(code, cause, "an unused token could not be revoked");
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
        let (method, token) = (Method::POST, Some(token));
        let ask = Ask { operation, method, path, token, body, repeat, loses_a_secret: false };
        self.send(ask).await.map_err(|failure| failure.into_error(Asked::Renew))
    }
}

#[async_trait]
impl Tokens for Requests {
    /// Returns the first address, and the number of addresses.
    fn keeper(&self) -> String {
        let endpoints = self.client.endpoints();
        let first = endpoints.first().map_or("the keeper", |endpoint| &endpoint.address);
        match endpoints.len() {
            0 | 1 => first.to_owned(),
            all => format!("{first} (the first of {all} addresses)"),
        }
    }

    async fn renew(&self, token: &Secret) -> Result<Lease, KmsError> {
        let renewed =
            self.of_token::<Authenticated>("auth/token/renew-self", token, Repeat::Freely);
        let lease = lease(&renewed.await?.auth)?;
        // A token that never expires is not renewed, so 0 means that the maximum lifetime is
        // reached.
        let ttl = lease.ttl.or(Some(Duration::ZERO));
        Ok(Lease { ttl, ..lease })
    }

    async fn revoke(&self, token: &Secret) -> Result<(), KmsError> {
        let Nothing = self.of_token("auth/token/revoke-self", token, Repeat::Never).await?;
        Ok(())
    }

    async fn settled(&self) {
        self.running.close();
        self.running.wait().await;
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").field("mount", &self.mount).finish_non_exhaustive()
    }
}

/// Adds the flag `--login-timeout` to the remedy of a time-out.
fn with_timeout_flag(failure: Failure) -> Failure {
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

fn locked(mount: &MountPath) -> KmsError {
    KmsError::new(
        Code::LoginRefused,
        format!("auth/{mount} refuses the login: the role is locked after failed logins"),
        "find out which node sends a wrong secret ID, and unlock the role with sys/locked-users; a lock ends 15 minutes after the last failed login. The login is tried again within a minute",
    )
}

fn no_mount(mount: &MountPath) -> KmsError {
    KmsError::new(
        Code::LoginRefused,
        format!("no auth method is mounted at auth/{mount}"),
        "correct --auth-mount or --vault-auth-namespace, or mount the auth method; the login is tried again within a minute",
    )
}

fn lease(auth: &Auth) -> Result<Lease, KmsError> {
    // A login that needs a second factor gets status 200 with an empty token.
    if auth.client_token.is_empty() {
        return Err(KmsError::new(
            Code::LoginRefused,
            "the login gave no token: it asks for a second factor",
            "exempt the role from multi-factor enforcement",
        ));
    }
    if !auth.client_token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(unreadable("the token has characters that are not valid in a token"));
    }
    let ttl = (auth.lease_duration > 0).then(|| Duration::from_secs(auth.lease_duration));
    let token = Secret::new(auth.client_token.clone());
    let lease =
        Lease { token, ttl, renewable: auth.renewable, own: true, ends_with_credential: false };
    Ok(lease)
}
