//! Outbound: the record of each wrap and each unwrap.

use std::{fmt::Debug, time::Duration};

use super::telemetry::Method;
use crate::domain::error::KmsError;

/// The process on the other side of a connection, as the kernel knew it when it connected
/// (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its process id; `None` where that is in another PID namespace.
    pub pid: Option<i32>,
}

/// One wrap or unwrap, without any data.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Which of the two.
    pub method: Method,
    /// The API server's identifier of the call; hostile text.
    pub uid: &'a str,
    /// The key id: that which a wrap answered, or that which an unwrap was asked with (hostile text).
    /// Empty where there is none.
    pub key_id: &'a str,
    /// Who called, where that is known.
    pub caller: Option<Caller>,
    /// From the request's arrival to its answer.
    pub elapsed: Duration,
    /// Why it failed, if it did.
    pub error: Option<&'a KmsError>,
    /// The keeper's identifier of the request that did it, where there was one: it stands in the
    /// keeper's own audit log.
    pub request_id: Option<&'a str>,
}

/// A place for entries. Never waits.
pub trait Audit: Debug + Send + Sync + 'static {
    /// Queues an entry.
    ///
    /// # Errors
    /// `audit-log-failing` where the entry, or the one before it, is lost and the operator wants calls
    /// to fail then. The call must not succeed.
    fn record(&self, entry: &Entry<'_>) -> Result<(), KmsError>;
}
