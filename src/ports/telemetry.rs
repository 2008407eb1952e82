//! Outbound: what happened, in the domain's words. Labels are closed enums, or constants that a
//! keeper's settings list ([`crate::ports::keeper::Labels`]).

use std::{fmt::Debug, time::Duration};

use super::audit::Caller;
use crate::domain::{
    error::KmsError,
    health::Standing,
    key::{KekVersion, KeyWarning},
    rotation::{RingChange, Writer},
    time::UnixTime,
};

/// The target of spans, which traces are made of; log lines have others.
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

    /// The name as it stands in the wire contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decrypt => "Decrypt",
            Self::Encrypt => "Encrypt",
            Self::Status => "Status",
        }
    }
}

/// What was asked of a keeper, in the words that dashboards of the original read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeeperOperation {
    /// A login.
    Login,
    /// The key's metadata.
    Read,
    /// A token renewal.
    Renew,
    /// A wrap or an unwrap.
    Write,
}

impl KeeperOperation {
    /// All values, for metrics that exist from the start.
    pub const ALL: [Self; 4] = [Self::Login, Self::Read, Self::Renew, Self::Write];

    /// The value of the metric label `operation`.
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

/// Whether an endpoint is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// It is asked.
    Closed,
    /// One request finds out whether it is back.
    HalfOpen,
    /// It is left alone for now.
    Open,
}

impl BreakerState {
    /// As operators call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// Something of a keeper's that ends at a known time, and that only an operator can renew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Expiring {
    /// The value of the metric label `what`.
    pub label: &'static str,
    /// What a person calls it.
    pub name: &'static str,
    /// How it is renewed.
    pub remedy: &'static str,
}

impl Expiring {
    /// Makes one from its metric label, its name for people and how it is renewed.
    #[must_use]
    pub const fn new(label: &'static str, name: &'static str, remedy: &'static str) -> Self {
        Self { label, name, remedy }
    }
}

/// Why the provider ended a connection to its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Too many were open, and this one was the least worth keeping.
    Crowded,
    /// It sent nothing for too long.
    Silent,
}

impl EndReason {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Crowded, Self::Silent];

    /// The value of the metric label `reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crowded => "crowded",
            Self::Silent => "silent",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A call of the API server ended. `uid` is the caller's word for it, for logs only.
    Answered {
        /// Which call.
        method: Method,
        /// The caller's identifier of this call; hostile text.
        uid: &'a str,
        /// The process that called, where that is known.
        caller: Option<Caller>,
        /// From the request's arrival to its answer.
        elapsed: Duration,
        /// The gRPC status that was answered, by number.
        status: i32,
        /// Why it failed, if it did.
        error: Option<&'a KmsError>,
    },
    /// One request to the keeper ended.
    KeeperCalled {
        /// What was asked.
        operation: KeeperOperation,
        /// From sending to the parsed answer.
        elapsed: Duration,
        /// Why it failed, if it did.
        error: Option<&'a KmsError>,
    },
    /// A request to the keeper is sent again, for this reason (the value of a metric label).
    Retried(&'static str),
    /// An endpoint of the keeper failed, or is back.
    Breaker {
        /// Which one, in the order of the configuration.
        endpoint: usize,
        /// Whether it is asked now.
        state: BreakerState,
    },
    /// An endpoint stays behind the others in key versions, or has caught up.
    Stale {
        /// Which one, in the order of the configuration.
        endpoint: usize,
        /// Whether it stays behind.
        stale: bool,
    },
    /// An unwrap joined an equal one that was under way.
    Coalesced,
    /// Unwraps went to the keeper together.
    Batched {
        /// How many.
        size: usize,
    },
    /// The number of unwraps that wait for the keeper changed.
    Queued {
        /// How many wait now.
        depth: usize,
    },
    /// The key's metadata was read, or could not be.
    Observed {
        /// Why it could not be read, if so.
        error: Option<&'a KmsError>,
    },
    /// The key ring changed.
    Ring(&'a RingChange),
    /// The key has settings that an operator should know of.
    Warned(&'a [KeyWarning]),
    /// Another version writes than before, or the first one does.
    Writing(&'a Writer),
    /// How long until the next version takes over; `None` when none is waiting.
    Takeover(Option<(KekVersion, Duration)>),
    /// A version was proven, or failed its proof.
    Proven {
        /// Which version.
        version: KekVersion,
        /// Why it failed, if it did.
        error: Option<&'a KmsError>,
    },
    /// `Status` answers otherwise than before.
    Standing(&'a Standing),
    /// Something that another plugin wrote was read.
    LegacyRead,
    /// The provider ended a connection to its socket.
    ConnectionEnded(EndReason),
    /// A peer that may not connect was turned away.
    PeerDenied,
    /// A token was obtained; `ttl` is `None` when it never expires.
    LoggedIn {
        /// How long it is good for.
        ttl: Option<Duration>,
    },
    /// A token was renewed.
    Renewed {
        /// How long it is good for now.
        ttl: Option<Duration>,
    },
    /// There is no token any more.
    SessionClosed,
    /// It became known when something expires.
    Expires {
        /// What.
        what: Expiring,
        /// When; `None` takes back what was said before, as for a new secret ID whose end is not
        /// known.
        at: Option<UnixTime>,
    },
    /// A login or a renewal failed; the next try comes after `wait`.
    SessionFailed {
        /// Why.
        error: &'a KmsError,
        /// How long until the next try.
        wait: Duration,
    },
}

/// A listener for what happens. Never blocks, never fails.
pub trait Telemetry: Debug + Send + Sync + 'static {
    /// Takes note of `event`.
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
