//! The session: one token for all requests, renewed and replaced in the background.
//!
//! One supervisor owns it; requests read the token of the moment. A token that the keeper
//! refuses is named by its generation, so that many refused requests lead to one login.

use std::{
    convert::Infallible,
    future::pending,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    credentials::{CredentialDigest, Credentials, Lease, LoginFailure},
    login_plan::{LoginEvent, LoginPlan, Next, doubled},
    session_view::{SessionState, SessionToken, SharedState},
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

/// Waits between renewals after a failure: doubled from the first to the last.
const RENEWAL_WAIT_FIRST: Duration = Duration::from_secs(1);
const RENEWAL_WAIT_LAST: Duration = Duration::from_secs(5);

/// The part of a lease after which it is renewed, give or take a tenth.
const RENEWED_AT: f64 = 2.0 / 3.0;

/// How long a request of the API server waits for a login that is under way, counted from the
/// start of that login.
const LOGIN_PATIENCE: Duration = Duration::from_secs(2);

/// A session with a keeper.
#[derive(Debug)]
pub struct VaultSession {
    credentials: Arc<dyn Credentials>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<dyn Telemetry>,
    view: SharedState,
    /// The generation that requests want replaced.
    refused: watch::Sender<u64>,
    /// When the login began that is under way.
    login_began: Mutex<Option<Monotonic>>,
}

impl VaultSession {
    /// A session without a token; [`VaultSession::run`] gets one.
    #[must_use]
    pub fn new(
        credentials: Arc<dyn Credentials>,
        clock: Arc<dyn Clock>,
        telemetry: Arc<dyn Telemetry>,
    ) -> Self {
        Self {
            credentials,
            clock,
            telemetry,
            view: SharedState::new(SessionState::Starting),
            refused: watch::Sender::new(0),
            login_began: Mutex::new(None),
        }
    }

    /// A token that was not refused. Waits for the first login, or for the next one where the
    /// token was refused, until `deadline` at the latest.
    pub(super) async fn token(&self, deadline: Monotonic) -> Result<SessionToken, KmsError> {
        let is_good = |view: &SessionState| match view {
            SessionState::Open(held) => held.generation > *self.refused.borrow(),
            SessionState::Closed(_) => true,
            SessionState::Starting => false,
        };
        self.wait_until(deadline, is_good).await
    }

    /// A token of a later login than `generation`, whose token the keeper refused.
    pub(super) async fn newer_than(
        &self,
        generation: u64,
        deadline: Monotonic,
    ) -> Result<SessionToken, KmsError> {
        self.refused.send_if_modified(|refused| {
            let news = *refused < generation;
            *refused = generation.max(*refused);
            news
        });
        let newer = |view: &SessionState| match view {
            SessionState::Open(held) => held.generation > generation,
            SessionState::Closed(_) => true,
            SessionState::Starting => false,
        };
        self.wait_until(deadline, newer).await
    }

    /// Waits until the first login has succeeded or failed, until `deadline` at the latest.
    pub async fn settled(&self, deadline: Monotonic) {
        tokio::select! {
            biased;
            _view = self.view.until(|view| !matches!(view, SessionState::Starting)) => (),
            () = self.clock.sleep(deadline.since(self.clock.now())) => (),
        }
    }

    /// How it is now.
    #[must_use]
    pub fn view(&self) -> SessionView {
        self.view.now().for_observers(self.clock.now())
    }

    /// Keeps the session open, for ever. To be run once. Safe to cancel.
    pub async fn run(&self) {
        let (mut plan, mut generation) = (LoginPlan::default(), 0_u64);
        loop {
            let (lease, sent) = self.log_in(&mut plan).await;
            generation = generation.saturating_add(1);
            let token = Arc::new(lease.token.clone());
            let expires = lease.ttl.map(|ttl| sent.after(ttl));
            self.view.replace(SessionState::Open(SessionToken { token, generation, expires }));
            let ended = self.keep(generation, lease, sent).await;
            self.learn(&mut plan, ended);
        }
    }

    /// Ends the token, waiting at most for one request. To be called once `run` was cancelled.
    pub async fn revoke(&self) {
        let SessionState::Open(held) = self.view.now() else { return };
        drop(self.credentials.revoke(&held.token).await);
    }

    /// Waits for a view that is `ready`: until `deadline`, but for a login under way only as long
    /// as a login usually takes, unless the caller has more time than the API server gives.
    async fn wait_until(
        &self,
        deadline: Monotonic,
        ready: impl Fn(&SessionState) -> bool + Send + Sync,
    ) -> Result<SessionToken, KmsError> {
        let now = self.clock.now();
        let patience = self.login_began().unwrap_or(now).after(LOGIN_PATIENCE);
        let long = Monotonic::at(deadline.since(Monotonic::at(CALL_BUDGET)));
        let wait = deadline.min(patience.max(long)).since(now);
        let view = tokio::select! {
            biased;
            view = self.view.until(ready) => Some(view),
            () = self.clock.sleep(wait) => None,
        };
        match view {
            Some(SessionState::Open(held)) => Ok(held),
            Some(SessionState::Closed(error)) => Err(error),
            Some(SessionState::Starting) | None => Err(self.no_token_yet()),
        }
    }

    fn no_token_yet(&self) -> KmsError {
        let keeper = self.credentials.keeper();
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

    /// Logs in as the plan says, for as long as it takes. Returns the lease and when it was asked
    /// for.
    async fn log_in(&self, plan: &mut LoginPlan) -> (Lease, Monotonic) {
        let mut failed = None;
        loop {
            self.note_login(Some(self.clock.now()));
            let materials = match self.credentials.materials().await {
                Ok(materials) => materials,
                Err(error) => {
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
                    self.rest(at, why).await;
                }
                Next::Now(index) => {
                    let Some(material) = materials.get(index) else { continue };
                    let (learned, error) = match self.credentials.login(material).await {
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

    /// Waits until `at`, or until the material changes. A session that has no token is closed
    /// meanwhile for `why`; one that has a token as soon as the keeper refuses it.
    async fn rest(&self, at: Monotonic, why: Option<KmsError>) {
        let closed = async {
            match why {
                Some(why) => self.close_once_refused(&why).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.clock.sleep(at.since(self.clock.now())) => (),
            () = self.credentials.changed() => (),
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

    /// Renews `lease` until another login is due: it cannot be renewed any further, or requests
    /// were refused.
    async fn keep(&self, generation: u64, mut lease: Lease, mut sent: Monotonic) -> LoginEvent {
        let full = lease.ttl;
        let mut refused = self.refused.subscribe();
        let mut failures = 0;
        loop {
            let mut demand = pin!(refused.wait_for(|refused| *refused >= generation));
            let Some(ttl) = lease.ttl else {
                drop(demand.await);
                return LoginEvent::Rejected;
            };
            let expires = sent.after(ttl);
            let due = if failures == 0 {
                let age = self.clock.now().since(sent);
                self.spread(ttl.mul_f64(RENEWED_AT)).saturating_sub(age)
            } else {
                renewal_wait(failures - 1)
            };
            // What is refused at its end was not refused for another reason.
            let at_end = |now| if now < expires { LoginEvent::Rejected } else { LoginEvent::Ended };
            tokio::select! {
                biased;
                () = self.clock.sleep(due) => (),
                _ = &mut demand => return at_end(self.clock.now()),
            }
            if !lease.renewable {
                return LoginEvent::Ended;
            }
            let asked = self.clock.now();
            // The other half of what is left is for a login.
            let most = expires.since(asked) / 2;
            let renewed = tokio::select! {
                biased;
                renewed = self.credentials.renew(&lease.token) => renewed,
                _ = &mut demand => return at_end(self.clock.now()),
                () = self.clock.sleep(most) => {
                    let (error, wait) = (&late_renewal(most), Duration::ZERO);
                    self.telemetry.record(Event::SessionFailed { error, wait });
                    return LoginEvent::Ended;
                }
            };
            match renewed {
                Ok(renewed) => {
                    self.telemetry.record(Event::Renewed { ttl: renewed.ttl });
                    // Capped: the keeper lets it end soon, though it may call it renewable.
                    let capped = renewed.ttl.is_some() && renewed.ttl < full.map(|ttl| ttl / 2);
                    (sent, failures) = (asked, 0);
                    self.view.set_expiry(renewed.ttl.map(|ttl| sent.after(ttl)));
                    lease = Lease { renewable: renewed.renewable && !capped, ..renewed };
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

    /// Closes the session for `error`: at once where there is no token, else as soon as the keeper
    /// refuses the one that is held.
    async fn close_once_refused(&self, error: &KmsError) -> Infallible {
        if let SessionState::Open(SessionToken { generation, .. }) = self.view.now() {
            let mut refused = self.refused.subscribe();
            drop(refused.wait_for(|refused| *refused >= generation).await);
        }
        self.close(error.clone());
        pending().await
    }

    fn close(&self, error: KmsError) {
        self.telemetry.record(Event::SessionClosed);
        self.view.replace(SessionState::Closed(error));
    }

    /// `wait`, changed by up to a tenth, so that nodes that started together spread out.
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
#[path = "session_tests.rs"]
mod tests;
