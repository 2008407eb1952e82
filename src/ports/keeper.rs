//! Outbound port: a keeper with its KEK and everything else that the program needs from it.

use std::{fmt::Debug, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{finding::Report, kek::Kek};
use crate::domain::{
    error::{Code, KmsError},
    key_id::Lineage,
};

/// A background task of a keeper. When it ends, the process ends.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A keeper of one key-encryption key.
///
/// The program makes a keeper from its settings without a request to a server. It puts its layers
/// around [`Keeper::kek`] (deadlines, coalescing, batches), runs [`Keeper::tasks`], and calls
/// [`Keeper::close`] once, before it ends.
#[async_trait]
pub trait Keeper: Debug + Send + Sync + 'static {
    /// Returns the KEK, without layers.
    fn kek(self: Arc<Self>) -> Arc<dyn Kek>;

    /// Returns the lineage for key ids when the operator names none. It is equal on every node that
    /// uses this key, and different for every other key.
    fn lineage(&self) -> Lineage;

    /// Returns the keeper's background tasks (such as sessions and watched files) with their names.
    /// The program calls this once.
    fn tasks(&self) -> Vec<(&'static str, Task)> {
        Vec::new()
    }

    /// Returns what `/statusz` shows of the keeper. Never waits.
    fn view(&self) -> KeeperView {
        KeeperView::default()
    }

    /// Adds findings about the connection, the login and the permissions to `report`. The program
    /// runs [`Keeper::tasks`] at the same time. Ends in bounded time.
    ///
    /// Returns whether the key can be checked. When it cannot, adds the unchecked areas to
    /// `report`.
    async fn check(&self, _report: &mut Report) -> bool {
        true
    }

    /// Ends sessions and releases resources. The program cancels the tasks first, and waits at most
    /// 1 s for this.
    async fn close(&self) {}
}

/// A keeper that consists of its KEK: it has no tasks and no sessions.
#[derive(Debug)]
pub struct PlainKeeper {
    kek: Arc<dyn Kek>,
    lineage: Lineage,
}

impl PlainKeeper {
    /// Returns the keeper of `kek`. [`Keeper::lineage`] says what `lineage` must be.
    #[must_use]
    pub fn of(kek: impl Kek, lineage: Lineage) -> Arc<dyn Keeper> {
        Arc::new(Self { kek: Arc::new(kek), lineage })
    }
}

impl Keeper for PlainKeeper {
    fn kek(self: Arc<Self>) -> Arc<dyn Kek> {
        Arc::clone(&self.kek)
    }

    fn lineage(&self) -> Lineage {
        self.lineage.clone()
    }
}

/// The values of metric labels that only this keeper uses. Each series exists from the start with
/// the value 0, because an alert on an increase does not notice a series that starts with 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labels {
    /// The keeper's own codes ([`Code::OfKeeper`]).
    pub codes: &'static [Code],
    /// The reasons why the keeper sends a request again
    /// ([`Event::Retried`](crate::ports::telemetry::Event::Retried)).
    pub retry_reasons: &'static [&'static str],
}

/// The state of a keeper, for `/statusz`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct KeeperView {
    /// The session. `None` for a keeper without sessions.
    pub session: Option<SessionView>,
    /// The servers in the order of the configuration. Empty for a keeper without servers.
    pub endpoints: Vec<EndpointView>,
}

impl KeeperView {
    /// Makes the view from its parts.
    #[must_use]
    pub const fn new(session: Option<SessionView>, endpoints: Vec<EndpointView>) -> Self {
        Self { session, endpoints }
    }
}

/// The state of a session.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// The place of the login, such as `auth/jwt (jwt)`.
    pub login: String,
    /// The number of logins. `None` without a token.
    pub logins: Option<u64>,
    /// The remaining time of the token. `None` without a token, or when the token never expires.
    pub token_left: Option<Duration>,
    /// The reason why there is no token. `None` with a token.
    pub closed: Option<KmsError>,
}

/// The state of a server.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// The address of the server.
    pub address: String,
    /// The state of the breaker: `closed` (requests go to the server), `half-open` or `open`.
    pub breaker: &'static str,
    /// Whether requests go to this server first.
    pub preferred: bool,
    /// The error of the last request. `None` when it succeeded.
    pub last_error: Option<KmsError>,
}
