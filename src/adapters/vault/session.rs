//! The session: one token for all requests, renewed and replaced in the background.
//!
//! One supervisor owns it; requests read the token of the moment. A token that the keeper
//! refuses is named by its generation, so that many refused requests lead to one login.

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    domain::{
        error::{Code, KmsError},
        secret::Secret,
        time::Monotonic,
    },
    ports::{
        clock::Clock,
        credentials::{Credentials, Lease},
        telemetry::{Event, Telemetry},
    },
};

/// Waits between tries after an outage: doubled from the first to the last.
const OUTAGE_WAIT_FIRST: Duration = Duration::from_secs(1);
const OUTAGE_WAIT_LAST: Duration = Duration::from_secs(5);

/// The longest wait after an answer that is neither: a page of a proxy, a mount that is not there
/// yet.
const ODD_WAIT_LAST: Duration = Duration::from_secs(30);

/// Waits after a login was refused, unless the credential changes: as long as a locked role stays
/// locked. The credentials themselves may hold back for longer what would lock it.
const REFUSED_WAIT: Duration = Duration::from_mins(15);

/// Waits after the credential's file could not be read; it is looked at more often than that.
const FILE_WAIT: Duration = Duration::from_mins(1);

/// The least time between two logins that refused requests asked for, once a token was refused
/// before it was that old: doubled each time that the new token was refused as well, up to the last.
const DEMAND_INTERVAL: Duration = Duration::from_secs(10);
const DEMAND_INTERVAL_LAST: Duration = Duration::from_mins(5);

/// The part of a lease after which it is renewed, give or take a tenth.
const RENEWED_AT: f64 = 2.0 / 3.0;

/// The least time between two logins of any cause.
const LOGIN_INTERVAL: Duration = Duration::from_secs(1);

/// Why a lease is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It cannot be renewed, or not for long.
    Worn,
    /// The keeper refused its token.
    Refused,
}

/// A token and the number of the login that gave it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) token: Arc<Secret>,
    pub(super) generation: u64,
    /// When it ends unless it is renewed; `None` when it never does.
    expires: Option<Monotonic>,
}

/// How a session is, for those who look on.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// How many logins there were, where a token is held.
    pub logins: Option<u64>,
    /// How long the token lasts unless it is renewed; `None` when it never ends or is not there.
    pub token_left: Option<Duration>,
    /// Why there is no token, if so.
    pub closed: Option<KmsError>,
}

/// What requests see.
#[derive(Clone, Debug)]
enum View {
    /// No login has ended yet.
    Starting,
    /// A token is held.
    Open(Held),
    /// There is no token, for this reason.
    Closed(KmsError),
}

/// A session with a keeper.
#[derive(Debug)]
pub struct Session {
    credentials: Arc<dyn Credentials>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<dyn Telemetry>,
    view: watch::Sender<View>,
    /// The generation that requests want replaced.
    refused: watch::Sender<u64>,
}

impl Session {
    /// A session without a token; [`Session::run`] gets one.
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
            view: watch::Sender::new(View::Starting),
            refused: watch::Sender::new(0),
        }
    }

    /// The token. Waits, until `deadline` at the latest, only for the very first login.
    pub(super) async fn token(&self, deadline: Monotonic) -> Result<Held, KmsError> {
        self.wait_until(deadline, |view| !matches!(view, View::Starting)).await
    }

    /// A token of a later login than `generation`, whose token the keeper refused.
    pub(super) async fn newer_than(
        &self,
        generation: u64,
        deadline: Monotonic,
    ) -> Result<Held, KmsError> {
        self.refused.send_if_modified(|refused| {
            let news = *refused < generation;
            *refused = generation.max(*refused);
            news
        });
        let newer = |view: &View| match view {
            View::Open(held) => held.generation > generation,
            View::Closed(_) => true,
            View::Starting => false,
        };
        self.wait_until(deadline, newer).await
    }

    /// How it is now.
    #[must_use]
    pub fn view(&self) -> SessionView {
        match &*self.view.borrow() {
            View::Starting => SessionView { logins: None, token_left: None, closed: None },
            View::Closed(error) => {
                SessionView { logins: None, token_left: None, closed: Some(error.clone()) }
            }
            View::Open(held) => SessionView {
                logins: Some(held.generation),
                token_left: held.expires.map(|at| at.since(self.clock.now())),
                closed: None,
            },
        }
    }

    /// Keeps the session open, for ever. To be run once. Safe to cancel.
    pub async fn run(&self) {
        let mut generation = 0_u64;
        let mut stillborn = 0_u32;
        loop {
            let (lease, sent) = self.log_in().await;
            generation = generation.saturating_add(1);
            let logged_in = self.clock.now();
            let token = Arc::new(lease.token.clone());
            let expires = lease.ttl.map(|ttl| sent.after(ttl));
            self.view.send_replace(View::Open(Held { token, generation, expires }));
            let ended = self.keep(generation, lease, sent).await;
            let held = self.clock.now().since(logged_in);
            match ended {
                Ended::Worn => {
                    stillborn = 0;
                    self.clock.sleep(LOGIN_INTERVAL.saturating_sub(held)).await;
                }
                // A token that dies as soon as it is made must not become a storm of logins.
                Ended::Refused => {
                    let spacing = match stillborn.checked_sub(1) {
                        // Once, it may be a node of the cluster that did not know the token yet.
                        None => LOGIN_INTERVAL,
                        Some(times) => doubled(DEMAND_INTERVAL, times, DEMAND_INTERVAL_LAST),
                    };
                    let young = held < spacing.max(DEMAND_INTERVAL);
                    stillborn = if young { stillborn.saturating_add(1) } else { 0 };
                    self.rest(spacing.saturating_sub(held)).await;
                }
            }
        }
    }

    /// Waits before the next login, with the session closed meanwhile.
    async fn rest(&self, wait: Duration) {
        if !wait.is_zero() {
            self.close(KmsError::new(
                Code::KeeperFailed,
                format!(
                    "the keeper refused a token that it gave moments ago; a login follows in {} s",
                    wait.as_secs()
                ),
                "if this lasts, check the token_bound_cidrs of the role",
            ));
            self.clock.sleep(wait).await;
        }
    }

    /// Ends the token, waiting at most for one request. To be called once `run` was cancelled.
    pub async fn revoke(&self) {
        let held = match &*self.view.borrow() {
            View::Open(held) => held.clone(),
            View::Starting | View::Closed(_) => return,
        };
        drop(self.credentials.revoke(&held.token).await);
    }

    async fn wait_until(
        &self,
        deadline: Monotonic,
        ready: impl Fn(&View) -> bool + Send + Sync,
    ) -> Result<Held, KmsError> {
        let mut views = self.view.subscribe();
        let wait = deadline.since(self.clock.now());
        let view = tokio::select! {
            biased;
            view = views.wait_for(|view| ready(view)) => view.ok().map(|view| view.clone()),
            () = self.clock.sleep(wait) => None,
        };
        match view {
            Some(View::Open(held)) => Ok(held),
            Some(View::Closed(error)) => Err(error),
            Some(View::Starting) | None => Err(KmsError::new(
                Code::KeeperTimeout,
                "no token from the keeper in time",
                "check the keeper's load and the network to it",
            )),
        }
    }

    /// Logs in, trying for as long as it takes. Returns the lease and when it was asked for.
    async fn log_in(&self) -> (Lease, Monotonic) {
        let mut failures = 0;
        loop {
            let sent = self.clock.now();
            let error = match self.credentials.login().await {
                Ok(lease) => {
                    self.telemetry.record(Event::LoggedIn { ttl: lease.ttl });
                    return (lease, sent);
                }
                Err(error) => error,
            };
            let wait = match error.code() {
                Code::CredentialUnreadable => self.spread(FILE_WAIT),
                // Never less, or it would be held back until the next time.
                Code::LoginRefused | Code::WrappingTokenUsed => {
                    REFUSED_WAIT.mul_f64(1.0 + self.clock.jitter() / 10.0)
                }
                code => {
                    let most = if code.is_outage() { OUTAGE_WAIT_LAST } else { ODD_WAIT_LAST };
                    let wait = backoff(failures, most);
                    failures = failures.saturating_add(1);
                    self.spread(wait)
                }
            };
            self.telemetry.record(Event::SessionFailed { error: &error, wait });
            let next_try = async {
                tokio::select! {
                    biased;
                    () = self.clock.sleep(wait) => (),
                    () = self.credentials.changed() => {
                        let since = self.clock.now().since(sent);
                        self.clock.sleep(LOGIN_INTERVAL.saturating_sub(since)).await;
                    }
                }
            };
            tokio::select! {
                biased;
                () = next_try => (),
                // A token that was still good until now: its users are to fail with the cause.
                never = self.close_once_refused(&error) => match never {},
            }
        }
    }

    /// Renews `lease` until another login is due: it cannot be renewed any further, or requests
    /// were refused.
    async fn keep(&self, generation: u64, mut lease: Lease, mut sent: Monotonic) -> Ended {
        let full = lease.ttl;
        let mut refused = self.refused.subscribe();
        let mut failures = 0;
        loop {
            let demand = refused.wait_for(|refused| *refused >= generation);
            let Some(ttl) = lease.ttl else {
                drop(demand.await);
                return Ended::Refused;
            };
            let expires = sent.after(ttl);
            let due = if failures == 0 {
                let age = self.clock.now().since(sent);
                self.spread(ttl.mul_f64(RENEWED_AT)).saturating_sub(age)
            } else {
                backoff(failures - 1, OUTAGE_WAIT_LAST)
            };
            tokio::select! {
                biased;
                () = self.clock.sleep(due) => (),
                // What is refused at its end was not refused for another reason.
                _ = demand => return if self.clock.now() < expires { Ended::Refused } else { Ended::Worn },
            }
            if !lease.renewable {
                return Ended::Worn;
            }
            let asked = self.clock.now();
            match self.credentials.renew(&lease.token).await {
                Ok(renewed) => {
                    self.telemetry.record(Event::Renewed { ttl: renewed.ttl });
                    // Capped: the keeper lets it end soon, though it may call it renewable.
                    let capped = renewed.ttl.is_some() && renewed.ttl < full.map(|ttl| ttl / 2);
                    (sent, failures) = (asked, 0);
                    self.prolong(renewed.ttl.map(|ttl| sent.after(ttl)));
                    lease = Lease { renewable: renewed.renewable && !capped, ..renewed };
                }
                Err(error) => {
                    let wait = backoff(failures, OUTAGE_WAIT_LAST);
                    self.telemetry.record(Event::SessionFailed { error: &error, wait });
                    if !error.code().is_outage() || self.clock.now().after(wait) >= expires {
                        return Ended::Worn;
                    }
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    fn prolong(&self, until: Option<Monotonic>) {
        self.view.send_modify(|view| {
            if let View::Open(held) = view {
                held.expires = until;
            }
        });
    }

    /// Closes the session for `error`: at once where there is no token, else as soon as the keeper
    /// refuses the one that is held.
    async fn close_once_refused(&self, error: &KmsError) -> Infallible {
        let held = match &*self.view.borrow() {
            View::Open(held) => Some(held.generation),
            View::Starting | View::Closed(_) => None,
        };
        if let Some(generation) = held {
            let mut refused = self.refused.subscribe();
            drop(refused.wait_for(|refused| *refused >= generation).await);
        }
        self.close(error.clone());
        pending().await
    }

    fn close(&self, error: KmsError) {
        self.telemetry.record(Event::SessionClosed);
        self.view.send_replace(View::Closed(error));
    }

    /// `wait`, changed by up to a tenth, so that nodes that started together spread out.
    fn spread(&self, wait: Duration) -> Duration {
        wait.mul_f64(0.9 + self.clock.jitter() / 5.0)
    }
}

fn backoff(failures: u32, most: Duration) -> Duration {
    doubled(OUTAGE_WAIT_FIRST, failures, most)
}

fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times.min(8))).min(most)
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
