//! Outbound port: the events for logs and metrics. Metric labels are closed enums, or constants
//! that a keeper's settings list ([`crate::ports::keeper::Labels`]).

use std::{fmt::Debug, time::Duration};

use super::audit::Caller;
use crate::domain::{
    error::KmsError,
    health::Standing,
    key::{KekVersion, KeyWarning},
    rotation::{RingChange, Writer},
    time::UnixTime,
};

/// The target of the spans for traces. Log lines have other targets.
pub const TRACE_TARGET: &str = "kms_trace";

/// A call of KMS v2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the calls")]
pub enum Method {
    Decrypt,
    Encrypt,
    Status,
}

impl Method {
    /// All values, for metrics that exist from the start.
    pub const ALL: [Self; 3] = [Self::Decrypt, Self::Encrypt, Self::Status];

    /// Returns the name of the call in the gRPC service.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decrypt => "Decrypt",
            Self::Encrypt => "Encrypt",
            Self::Status => "Status",
        }
    }
}

/// The operation of a request to a keeper. The label values are those that existing dashboards use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeeperOperation {
    /// A login.
    Login,
    /// A read of the key's metadata.
    Read,
    /// A token renewal.
    Renew,
    /// A wrap or an unwrap.
    Write,
}

impl KeeperOperation {
    /// All values, for metrics that exist from the start.
    pub const ALL: [Self; 4] = [Self::Login, Self::Read, Self::Renew, Self::Write];

    /// Returns the value of the metric label `operation`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Read => "read",
            Self::Renew => "renew",
            Self::Write => "write",
        }
    }
}

/// The state of an endpoint's breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Requests go to the endpoint.
    Closed,
    /// A single probe request goes to the endpoint.
    HalfOpen,
    /// No request goes to the endpoint for now.
    Open,
}

impl BreakerState {
    /// Returns the name that operators see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// An item of a keeper that expires at a known time and that this program cannot renew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Expiring {
    /// The value of the metric label `what`.
    pub label: &'static str,
    /// The name for people.
    pub name: &'static str,
    /// How the operator renews the item.
    pub remedy: &'static str,
    /// A warning is logged when less than this time is left.
    pub soon: Duration,
}

impl Expiring {
    /// Makes the item from its metric label, its name and its remedy. An operator renews it, so the
    /// warning comes 7 days before the end.
    #[must_use]
    pub const fn new(label: &'static str, name: &'static str, remedy: &'static str) -> Self {
        Self { label, name, remedy, soon: Duration::from_hours(7 * 24) }
    }

    /// Makes an item that another program renews in time, such as a token of an hour. The warning
    /// comes one minute before the end: that program no longer works.
    #[must_use]
    pub const fn short_lived(
        label: &'static str,
        name: &'static str,
        remedy: &'static str,
    ) -> Self {
        Self { label, name, remedy, soon: Duration::from_mins(1) }
    }
}

/// The reason why the provider ended a connection to its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Too many connections were open, and this one was the least useful.
    Crowded,
    /// The connection sent no data for too long.
    Silent,
}

impl EndReason {
    /// All values, for metrics that exist from the start.
    pub const ALL: [Self; 2] = [Self::Crowded, Self::Silent];

    /// Returns the value of the metric label `reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crowded => "crowded",
            Self::Silent => "silent",
        }
    }
}

/// An event.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A call of the API server ended.
    Answered {
        /// The method of the call.
        method: Method,
        /// The API server's identifier of the call, for logs only. The text is untrusted.
        uid: &'a str,
        /// The process that called. `None` when it is unknown.
        caller: Option<Caller>,
        /// The time from the arrival of the request to its answer.
        elapsed: Duration,
        /// The number of the gRPC status in the answer, or of CANCELLED without an answer.
        status: i32,
        /// The reason of the failure. `None` when the call succeeded.
        error: Option<&'a KmsError>,
    },
    /// One request to the keeper ended.
    KeeperCalled {
        /// The operation of the request.
        operation: KeeperOperation,
        /// The time from sending the request to the parsed answer.
        elapsed: Duration,
        /// The reason of the failure. `None` when the request succeeded.
        error: Option<&'a KmsError>,
    },
    /// A request to the keeper is sent again. The value is the reason, as in the metric label.
    Retried(&'static str),
    /// The breaker of an endpoint changed its state.
    Breaker {
        /// The index of the endpoint in the configuration.
        endpoint: usize,
        /// The new state.
        state: BreakerState,
    },
    /// An endpoint permanently has older key versions than the others, or has caught up.
    Stale {
        /// The index of the endpoint in the configuration.
        endpoint: usize,
        /// `true` when the endpoint has older versions, `false` when it has caught up.
        stale: bool,
    },
    /// An unwrap joined an equal unwrap that was running.
    Coalesced,
    /// Several unwraps were sent to the keeper in one batch.
    Batched {
        /// The number of unwraps in the batch.
        size: usize,
    },
    /// The number of unwraps that wait for the keeper changed.
    Queued {
        /// The number of unwraps that wait now.
        depth: usize,
    },
    /// A read of the key's metadata ended.
    Observed {
        /// The reason of the failure. `None` when the read succeeded.
        error: Option<&'a KmsError>,
    },
    /// The key ring changed.
    Ring(&'a RingChange),
    /// The warnings about the key's settings changed. The list is empty when all of them have
    /// ended.
    Warned(&'a [KeyWarning]),
    /// The writing version changed, or the first version writes.
    Writing(&'a Writer),
    /// The next version that takes over, and the time until then. `None` when no version waits.
    Takeover(Option<(KekVersion, Duration)>),
    /// A proof of a version ended.
    Proven {
        /// The version.
        version: KekVersion,
        /// The reason of the failure. `None` when the proof succeeded.
        error: Option<&'a KmsError>,
    },
    /// The health that `Status` reports changed.
    Standing(&'a Standing),
    /// An object of another plugin was unwrapped.
    LegacyRead,
    /// The provider ended a connection to its socket.
    ConnectionEnded(EndReason),
    /// The provider refused a connection of a process that may not connect.
    PeerDenied,
    /// A connection is of an API server before 1.32, so its `:authority` is rewritten.
    AuthorityRewritten,
    /// A login gave a token.
    LoggedIn {
        /// The lifetime of the token. `None` when it never expires.
        ttl: Option<Duration>,
    },
    /// A token was renewed.
    Renewed {
        /// The new lifetime of the token. `None` when it never expires.
        ttl: Option<Duration>,
    },
    /// The session has no token any more.
    SessionClosed,
    /// The time of an expiry became known or unknown.
    Expires {
        /// The item that expires.
        what: Expiring,
        /// The time of the expiry. `None` withdraws an earlier time, for example after the change
        /// to a secret ID whose expiry is unknown.
        at: Option<UnixTime>,
    },
    /// A login or a renewal failed.
    SessionFailed {
        /// The reason of the failure.
        error: &'a KmsError,
        /// The time until the next attempt.
        wait: Duration,
    },
}

/// A receiver of events. Never blocks and never fails.
pub trait Telemetry: Debug + Send + Sync + 'static {
    /// Records `event`.
    fn record(&self, event: Event<'_>);
}

#[cfg(any(test, feature = "mocks"))]
mockall::mock! {
    #[derive(Debug)]
    pub Telemetry {}
    impl Telemetry for Telemetry {
        fn record<'a>(&self, event: Event<'a>);
    }
}

#[cfg(test)]
#[path = "telemetry_tests.rs"]
mod tests;
