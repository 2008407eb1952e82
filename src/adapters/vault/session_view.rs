//! What requests and observers see of a session.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{sync::Notify, task::coop::consume_budget};

use crate::{
    domain::{error::KmsError, secret::Secret, time::Monotonic},
    ports::keeper::SessionView,
};

/// A token and the number of the login that gave it.
#[derive(Clone, Debug)]
pub(super) struct SessionToken {
    pub(super) token: Arc<Secret>,
    pub(super) generation: u64,
    /// When it ends unless it is renewed; `None` when it never does.
    pub(super) expires: Option<Monotonic>,
}

/// What requests see.
#[derive(Clone, Debug)]
pub(super) enum SessionState {
    /// No login has ended yet.
    Starting,
    /// A token is held.
    Open(SessionToken),
    /// There is no token, for this reason.
    Closed(KmsError),
}

impl SessionState {
    /// The same for those who look on, at `now`.
    pub(super) fn for_observers(&self, now: Monotonic) -> SessionView {
        let nothing = SessionView { logins: None, token_left: None, closed: None };
        match self {
            Self::Starting => nothing,
            Self::Closed(error) => SessionView { closed: Some(error.clone()), ..nothing },
            Self::Open(held) => SessionView {
                logins: Some(held.generation),
                token_left: held.expires.map(|at| at.since(now)),
                closed: None,
            },
        }
    }
}

/// The view of the moment. Requests that wait for another one are woken in the order in which they
/// began to wait, so that a simulation replays exactly; the receivers of `tokio::sync::watch` are
/// woken in a random order.
#[derive(Debug)]
pub(super) struct SharedState {
    view: Mutex<SessionState>,
    changed: Notify,
}

impl SharedState {
    /// Shows `view`.
    pub(super) const fn new(view: SessionState) -> Self {
        Self { view: Mutex::new(view), changed: Notify::const_new() }
    }

    /// What is shown now.
    pub(super) fn now(&self) -> SessionState {
        self.lock().clone()
    }

    /// Shows `view` from now on.
    pub(super) fn replace(&self, view: SessionState) {
        *self.lock() = view;
        self.changed.notify_waiters();
    }

    /// Changes when the token that is shown ends, where one is.
    pub(super) fn set_expiry(&self, until: Option<Monotonic>) {
        if let SessionState::Open(held) = &mut *self.lock() {
            held.expires = until;
        }
    }

    /// Waits for a view that is `ready`. Safe to cancel.
    pub(super) async fn until(
        &self,
        ready: impl Fn(&SessionState) -> bool + Send + Sync,
    ) -> SessionState {
        // A caller that asks again and again lets the login go on.
        consume_budget().await;
        loop {
            let changed = self.changed.notified();
            let view = self.now();
            if ready(&view) {
                return view;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, SessionState> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
