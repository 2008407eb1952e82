//! What requests and observers see of a session.

use std::{sync::Arc, time::Duration};

use crate::domain::{error::KmsError, secret::Secret, time::Monotonic};

/// A token and the number of the login that gave it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) token: Arc<Secret>,
    pub(super) generation: u64,
    /// When it ends unless it is renewed; `None` when it never does.
    pub(super) expires: Option<Monotonic>,
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
pub(super) enum View {
    /// No login has ended yet.
    Starting,
    /// A token is held.
    Open(Held),
    /// There is no token, for this reason.
    Closed(KmsError),
}

impl View {
    /// The same for those who look on, at `now`.
    pub(super) fn shown(&self, now: Monotonic) -> SessionView {
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
