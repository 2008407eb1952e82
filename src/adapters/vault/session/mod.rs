//! The session: one token for all requests, renewed and replaced in the background.
//!
//! One supervisor, [`VaultSession::run`], logs in and renews. Requests read the current token. If
//! the keeper refuses a token, the requests report its generation, so that many refused requests
//! lead to one login.

mod login_plan;
mod view;

use std::{
    convert::Infallible,
    future::pending,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use self::{
    login_plan::{LOGIN_INTERVAL, LoginEvent, LoginPlan, Next, doubled},
    view::{SessionState, SessionToken, SharedState},
};
use super::login::{
    Login,
    port::{CredentialDigest, Lease, LoginFailure},
};
use crate::{
    domain::{
        error::{Code, KmsError},
        time::{CALL_BUDGET, Monotonic},
    },
    ports::{
        clock::Clock,
        keeper::SessionView,
        telemetry::{Event, Telemetry},
    },
};

/// The wait between renewals after a failure. It doubles from the first value up to the last.
const RENEWAL_WAIT_FIRST: Duration = Duration::from_secs(1);
const RENEWAL_WAIT_LAST: Duration = Duration::from_secs(5);

/// The part of a token's lifetime after which it is renewed, plus or minus a tenth.
const RENEWED_AT: f64 = 2.0 / 3.0;

/// How long a request of the API server waits for a running login, counted from the start of that
/// login.
const LOGIN_WAIT_MAX: Duration = Duration::from_secs(2);

/// How long the end of a session waits for the answer to a login or an unwrap that runs.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

/// A session with a keeper.
#[derive(Debug)]
pub struct VaultSession {
    login: Login,
    clock: Arc<dyn Clock>,
    telemetry: Arc<dyn Telemetry>,
    state: SharedState,
    /// The newest generation whose token the keeper refused.
    refused: watch::Sender<u64>,
    /// When the running login began. `None` if no login is running.
    login_began: Mutex<Option<Monotonic>>,
}

impl VaultSession {
    /// Creates a session without a token. [`VaultSession::run`] logs in.
    #[must_use]
    pub fn new(login: Login, clock: Arc<dyn Clock>, telemetry: Arc<dyn Telemetry>) -> Self {
        Self {
            login,
            clock,
            telemetry,
            state: SharedState::new(SessionState::Starting),
            refused: watch::Sender::new(0),
            login_began: Mutex::new(None),
        }
    }

    /// Returns a token that the keeper has not refused. Waits for the first login, or for the next
    /// login if the token was refused, until `deadline`.
    pub(super) async fn token(&self, deadline: Monotonic) -> Result<SessionToken, KmsError> {
        let is_good = |view: &SessionState| match view {
            SessionState::Open(held) => held.generation > *self.refused.borrow(),
            SessionState::Closed(_) => true,
            SessionState::Starting => false,
        };
        self.wait_until(deadline, is_good).await
    }

    /// Reports that the keeper refused the token of `generation`. Waits for a token of a later
    /// login and returns it.
    pub(super) async fn newer_than(
        &self,
        generation: u64,
        deadline: Monotonic,
    ) -> Result<SessionToken, KmsError> {
        self.refused.send_if_modified(|refused| {
            let is_newer = *refused < generation;
            *refused = generation.max(*refused);
            is_newer
        });
        let newer = |view: &SessionState| match view {
            SessionState::Open(held) => held.generation > generation,
            SessionState::Closed(_) => true,
            SessionState::Starting => false,
        };
        self.wait_until(deadline, newer).await
    }

    /// Waits until the first login has succeeded or failed, but not longer than until `deadline`.
    pub async fn settled(&self, deadline: Monotonic) {
        tokio::select! {
            biased;
            _state = self.state.until(|state| !matches!(state, SessionState::Starting)) => (),
            () = self.clock.sleep(deadline.since(self.clock.now())) => (),
        }
    }

    /// Returns the current state for observers.
    #[must_use]
    pub fn view(&self) -> SessionView {
        self.state.now().for_observers(&self.login.place, self.clock.now())
    }

    /// Logs in, renews the token and logs in again when needed. Never returns. Call this once. Safe
    /// to cancel.
    pub async fn run(&self) {
        let (mut plan, mut generation) = (LoginPlan::default(), 0_u64);
        loop {
            let (lease, sent) = self.log_in(&mut plan).await;
            generation = generation.saturating_add(1);
            let token = Arc::new(lease.token.clone());
            let expires = lease.ttl.map(|ttl| sent.after(ttl));
            let own = lease.own;
            let open = SessionToken { token, generation, expires, own };
            self.state.replace(SessionState::Open(open));
            let ended = self.keep(generation, lease, sent).await;
            self.learn(&mut plan, ended);
        }
    }

    /// Revokes the token with one request, if a login of this session created it. Waits for at most 2 s
    /// until a login or an unwrap that runs has ended. Call this after `run` was cancelled.
    pub async fn revoke(&self) {
        let revoked = async {
            if let SessionState::Open(SessionToken { token, own: true, .. }) = self.state.now() {
                drop(self.login.tokens.revoke(&token).await);
            }
        };
        let settled = async {
            tokio::select! {
                () = self.login.tokens.settled() => (),
                () = self.clock.sleep(SETTLES_WITHIN) => (),
            }
        };
        tokio::join!(revoked, settled);
    }

    /// Waits for a state that is `ready`, until `deadline`. A caller with no more time than the API
    /// server gives waits at most [`LOGIN_WAIT_MAX`] for a running login.
    async fn wait_until(
        &self,
        deadline: Monotonic,
        ready: impl Fn(&SessionState) -> bool + Send + Sync,
    ) -> Result<SessionToken, KmsError> {
        let now = self.clock.now();
        let login_end = self.login_began().unwrap_or(now).after(LOGIN_WAIT_MAX);
        // When a caller with more time than a call of the API server stops waiting.
        let long = Monotonic::at(deadline.since(Monotonic::at(CALL_BUDGET)));
        let wait = deadline.min(login_end.max(long)).since(now);
        let state = tokio::select! {
            biased;
            state = self.state.until(ready) => Some(state),
            () = self.clock.sleep(wait) => None,
        };
        match state {
            Some(SessionState::Open(held)) => Ok(held),
            Some(SessionState::Closed(error)) => Err(error),
            Some(SessionState::Starting) | None => Err(self.no_token_yet()),
        }
    }

    fn no_token_yet(&self) -> KmsError {
        let keeper = self.login.tokens.keeper();
        let cause = self.login_began().map_or_else(
            || format!("no token from {keeper} in time"),
            |began| {
                let took = self.clock.now().since(began).as_secs_f64();
                format!("no token from {keeper} yet: the login has taken {took:.1} s so far")
            },
        );
        KmsError::new(
            Code::KeeperTimeout,
            cause,
            "check the keeper's load and the network to it; --login-timeout limits a login",
        )
    }

    /// Logs in at the times that the plan allows, until a login succeeds. Returns the lease and
    /// when its login was sent.
    async fn log_in(&self, plan: &mut LoginPlan) -> (Lease, Monotonic) {
        let mut failed = None;
        loop {
            self.note_login(Some(self.clock.now()));
            let materials = match self.login.method.materials().await {
                Ok(materials) if !materials.is_empty() => materials,
                nothing => {
                    let error = nothing.err().unwrap_or_else(|| {
                        let cause = "the login method has no credential and no reason for that";
                        KmsError::new(Code::Internal, cause, "report this as a bug")
                    });
                    self.learn(plan, LoginEvent::Failed(CredentialDigest::NONE, error.clone()));
                    failed = Some(error);
                    Vec::new()
                }
            };
            let mut digests: Vec<_> = materials.iter().map(|material| material.digest).collect();
            if digests.is_empty() {
                digests.push(CredentialDigest::NONE);
            }
            let now = self.clock.now();
            let next = plan.next(&digests, now);
            if let Some(error) = failed.take() {
                let wait = match &next {
                    Next::Now(_) => Duration::ZERO,
                    Next::NotBefore { at, .. } => at.since(now),
                };
                self.telemetry.record(Event::SessionFailed { error: &error, wait });
            }
            match next {
                Next::NotBefore { at, why } => {
                    self.note_login(None);
                    self.wait_for_login_time(at, why).await;
                }
                Next::Now(index) => {
                    let Some(material) = materials.get(index) else { continue };
                    let (learned, error) = match self.login.method.login(material).await {
                        Ok(lease) => {
                            self.note_login(None);
                            self.learn(plan, LoginEvent::Granted(material.digest));
                            self.telemetry.record(Event::LoggedIn { ttl: lease.ttl });
                            return (lease, now);
                        }
                        Err(LoginFailure::Refused(error)) => {
                            (LoginEvent::Refused(material.digest, error.clone()), error)
                        }
                        Err(LoginFailure::Failed(error)) => {
                            (LoginEvent::Failed(material.digest, error.clone()), error)
                        }
                    };
                    self.learn(plan, learned);
                    failed = Some(error);
                }
            }
        }
    }

    /// Waits until `at`, or until the material changes. Closes the session for the reason `why` in
    /// the meantime: at once if it has no token, and otherwise when the keeper refuses its token.
    async fn wait_for_login_time(&self, at: Monotonic, why: Option<KmsError>) {
        let closed = async {
            match why {
                Some(why) => self.close_once_refused(&why).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.clock.sleep(at.since(self.clock.now())) => (),
            () = self.material_changed() => (),
            never = closed => match never {},
        }
    }

    fn learn(&self, plan: &mut LoginPlan, what: LoginEvent) {
        plan.learn(what, self.clock.now(), self.clock.jitter());
    }

    fn login_began(&self) -> Option<Monotonic> {
        *self.login_began.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_login(&self, began: Option<Monotonic>) {
        *self.login_began.lock().unwrap_or_else(PoisonError::into_inner) = began;
    }

    /// Renews `lease` until another login is needed, and returns why: the keeper refused the token,
    /// the token expired, or it cannot be renewed.
    async fn keep(&self, generation: u64, mut lease: Lease, mut sent: Monotonic) -> LoginEvent {
        let full = lease.ttl;
        let mut refused = self.refused.subscribe();
        let mut failures = 0;
        loop {
            let mut rejection = pin!(refused.wait_for(|refused| *refused >= generation));
            let Some(ttl) = lease.ttl else {
                tokio::select! {
                    biased;
                    _ = &mut rejection => return LoginEvent::Rejected,
                    () = self.replaced(lease.ends_with_credential) => return LoginEvent::Ended,
                }
            };
            let expires = sent.after(ttl);
            let due = if failures == 0 {
                let age = self.clock.now().since(sent);
                self.spread(ttl.mul_f64(RENEWED_AT)).saturating_sub(age)
            } else {
                renewal_wait(failures - 1)
            };
            // A token that is refused after its expiry counts as expired and not as rejected.
            let at_end = |now| if now < expires { LoginEvent::Rejected } else { LoginEvent::Ended };
            tokio::select! {
                biased;
                () = self.clock.sleep(due) => (),
                _ = &mut rejection => return at_end(self.clock.now()),
                () = self.replaced(lease.ends_with_credential) => return LoginEvent::Ended,
            }
            if !lease.renewable {
                return LoginEvent::Ended;
            }
            let asked = self.clock.now();
            // Leaves the other half of the remaining lifetime for a login.
            let most = expires.since(asked) / 2;
            let renewed = tokio::select! {
                biased;
                renewed = self.login.tokens.renew(&lease.token) => renewed,
                _ = &mut rejection => return at_end(self.clock.now()),
                () = self.clock.sleep(most) => {
                    let (error, wait) = (&late_renewal(most), Duration::ZERO);
                    self.telemetry.record(Event::SessionFailed { error, wait });
                    return LoginEvent::Ended;
                }
            };
            match renewed {
                Ok(renewed) => {
                    self.telemetry.record(Event::Renewed { ttl: renewed.ttl });
                    // A shorter lifetime means that the keeper caps it: the token expires soon,
                    // even if the answer says that it is renewable.
                    let capped = renewed.ttl.is_some() && renewed.ttl < full.map(|ttl| ttl / 2);
                    (sent, failures) = (asked, 0);
                    self.state.set_expiry(renewed.ttl.map(|ttl| sent.after(ttl)));
                    lease = Lease {
                        ttl: renewed.ttl,
                        renewable: renewed.renewable && !capped,
                        ..lease
                    };
                }
                Err(error) => {
                    let wait = renewal_wait(failures);
                    self.telemetry.record(Event::SessionFailed { error: &error, wait });
                    if !error.code().is_outage() || self.clock.now().after(wait) >= expires {
                        return LoginEvent::Ended;
                    }
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    /// Waits until the material changes, and for [`LOGIN_INTERVAL`] at least: however often a method
    /// reports a change, its material is not read faster than this. Safe to cancel.
    async fn material_changed(&self) {
        self.clock.sleep(LOGIN_INTERVAL).await;
        self.login.method.changed().await;
    }

    /// Waits until the credential changes, if the token ends with it. Otherwise reads each new
    /// credential, so that its expiry is reported, and never returns. Safe to cancel.
    async fn replaced(&self, ends_with_credential: bool) {
        loop {
            self.material_changed().await;
            if ends_with_credential {
                return;
            }
            drop(self.login.method.materials().await);
        }
    }

    /// Closes the session with `error`: at once if it has no token, and otherwise when the keeper
    /// refuses its token.
    async fn close_once_refused(&self, error: &KmsError) -> Infallible {
        if let SessionState::Open(SessionToken { generation, .. }) = self.state.now() {
            let mut refused = self.refused.subscribe();
            drop(refused.wait_for(|refused| *refused >= generation).await);
        }
        self.close(error.clone());
        pending().await
    }

    fn close(&self, error: KmsError) {
        self.telemetry.record(Event::SessionClosed);
        self.state.replace(SessionState::Closed(error));
    }

    /// Returns `wait` plus or minus up to a tenth, so that nodes that started together do not renew
    /// together.
    fn spread(&self, wait: Duration) -> Duration {
        wait.mul_f64(0.9 + self.clock.jitter() / 5.0)
    }
}

fn renewal_wait(failures: u32) -> Duration {
    doubled(RENEWAL_WAIT_FIRST, failures, RENEWAL_WAIT_LAST)
}

fn late_renewal(most: Duration) -> KmsError {
    KmsError::new(
        Code::KeeperTimeout,
        format!("no answer to a renewal within {:.1} s", most.as_secs_f64()),
        "check the keeper's load and the network to it",
    )
}

#[cfg(test)]
mod tests;
