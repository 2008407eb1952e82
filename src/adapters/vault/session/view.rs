//! The state of a session, shared between the supervisor, requests and observers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{sync::Notify, task::coop::consume_budget};

use crate::{
    domain::{error::KmsError, secret::Secret, time::Monotonic},
    ports::keeper::SessionView,
};

/// A token and the number of the login that gave it.
#[derive(Clone, Debug)]
pub(in crate::adapters::vault) struct SessionToken {
    pub(in crate::adapters::vault) token: Arc<Secret>,
    pub(in crate::adapters::vault) generation: u64,
    /// When the token expires unless it is renewed. `None` means that it never expires.
    pub(in crate::adapters::vault) expires: Option<Monotonic>,
    /// Whether a login of this session created the token.
    pub(in crate::adapters::vault) own: bool,
}

/// The state of the session, for requests.
#[derive(Clone, Debug)]
pub(super) enum SessionState {
    /// No login has finished yet.
    Starting,
    /// The session has a token.
    Open(SessionToken),
    /// The session has no token, for this reason.
    Closed(KmsError),
}

impl SessionState {
    /// Returns the state for observers, such as metrics and `/statusz`, at `now`. `login` names the
    /// place of the login.
    pub(super) fn for_observers(&self, login: &str, now: Monotonic) -> SessionView {
        let login = login.to_owned();
        let nothing = SessionView { login, logins: None, token_left: None, closed: None };
        match self {
            Self::Starting => nothing,
            Self::Closed(error) => SessionView { closed: Some(error.clone()), ..nothing },
            Self::Open(held) => SessionView {
                logins: Some(held.generation),
                token_left: held.expires.map(|at| at.since(now)),
                ..nothing
            },
        }
    }
}

/// The current state. Wakes waiting requests in the order in which they began to wait, so that a
/// simulation replays exactly. `tokio::sync::watch` would wake them in a random order.
#[derive(Debug)]
pub(super) struct SharedState {
    state: Mutex<SessionState>,
    changed: Notify,
}

impl SharedState {
    /// Starts with `state`.
    pub(super) const fn new(state: SessionState) -> Self {
        Self { state: Mutex::new(state), changed: Notify::const_new() }
    }

    /// Returns the current state.
    pub(super) fn now(&self) -> SessionState {
        self.lock().clone()
    }

    /// Replaces the state by `state` and wakes all waiting requests.
    pub(super) fn replace(&self, state: SessionState) {
        *self.lock() = state;
        self.changed.notify_waiters();
    }

    /// Sets when the token expires. Does nothing if the session has no token.
    pub(super) fn set_expiry(&self, until: Option<Monotonic>) {
        if let SessionState::Open(held) = &mut *self.lock() {
            held.expires = until;
        }
    }

    /// Waits until the state is `ready` and returns it. Safe to cancel.
    pub(super) async fn until(
        &self,
        ready: impl Fn(&SessionState) -> bool + Send + Sync,
    ) -> SessionState {
        // Yields, so that a caller that asks in a loop does not keep the login from running.
        consume_budget().await;
        loop {
            let changed = self.changed.notified();
            let state = self.now();
            if ready(&state) {
                return state;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, SessionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
