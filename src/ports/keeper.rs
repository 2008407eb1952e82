//! Outbound: a keeper as one thing: its KEK, and what the program needs of it beside.

use std::{fmt::Debug, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{finding::Report, kek::Kek};
use crate::domain::{
    error::{Code, KmsError},
    key_id::Lineage,
};

/// A task that a keeper wants to be run in the background. Its end is the end of the process.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A keeper of one key-encryption key.
///
/// Made from its settings without asking anything of a server. The program puts its layers around
/// [`Keeper::kek`] (deadlines, coalescing, batches), runs [`Keeper::tasks`], and calls
/// [`Keeper::close`] once, at its end.
#[async_trait]
pub trait Keeper: Debug + Send + Sync + 'static {
    /// Returns the KEK, without layers.
    fn kek(self: Arc<Self>) -> Arc<dyn Kek>;

    /// Returns what key ids derive from unless the operator names a lineage: equal on every node
    /// that uses this key, and different for every other key.
    fn lineage(&self) -> Lineage;

    /// Returns what keeps the keeper going (sessions, watched files), each task under a name. The
    /// program calls this once.
    fn tasks(&self) -> Vec<(&'static str, Task)> {
        Vec::new()
    }

    /// Returns what `/statusz` shows. Never waits.
    fn view(&self) -> KeeperView {
        KeeperView::default()
    }

    /// Adds to `report` what is right and wrong with the way to the keeper, the login and the
    /// permissions, while [`Keeper::tasks`] run. Ends in bounded time. Returns whether the key can
    /// be looked at; where it cannot, it names in the report what was left out.
    async fn check(&self, _report: &mut Report) -> bool {
        true
    }

    /// Ends sessions and gives back what is held. The tasks were cancelled before. The program
    /// waits for it for 1 s.
    async fn close(&self) {}
}

/// The values of metric labels that only this keeper has. Each series exists from the start with the
/// value 0, because an alert on an increase does not see a series that begins with 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labels {
    /// Its own codes ([`Code::OfKeeper`]).
    pub codes: &'static [Code],
    /// Why it sends a request again
    /// ([`Event::Retried`](crate::ports::telemetry::Event::Retried)).
    pub retry_reasons: &'static [&'static str],
}

/// How a keeper is, for people.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct KeeperView {
    /// The session, for keepers that have one.
    pub session: Option<SessionView>,
    /// The servers, as they were given, for keepers that have some.
    pub endpoints: Vec<EndpointView>,
}

impl KeeperView {
    /// A keeper with this session and these servers.
    #[must_use]
    pub const fn new(session: Option<SessionView>, endpoints: Vec<EndpointView>) -> Self {
        Self { session, endpoints }
    }
}

/// How a session is.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// How many logins there were, where a token is held.
    pub logins: Option<u64>,
    /// How long the token lasts unless it is renewed; `None` when it never ends or is not there.
    pub token_left: Option<Duration>,
    /// Why there is no token, if so.
    pub closed: Option<KmsError>,
}

/// How a server is.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// Where it is.
    pub address: String,
    /// Whether requests go to it: `closed` (they do), `half-open` or `open`.
    pub breaker: &'static str,
    /// Whether it is asked first.
    pub preferred: bool,
    /// Why the last request to it failed, until one works.
    pub last_error: Option<KmsError>,
}
