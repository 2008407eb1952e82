//! Outbound port: the audit log of wraps and unwraps.

use std::{fmt::Debug, time::Duration};

use super::telemetry::Method;
use crate::domain::error::KmsError;

/// The process at the other end of a connection, as the kernel recorded it when the connection was
/// made (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The process id. `None` when the process is in another PID namespace.
    pub pid: Option<i32>,
}

/// The record of one wrap or unwrap. Contains no plaintext and no ciphertext.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The method: [`Method::Encrypt`] or [`Method::Decrypt`].
    pub method: Method,
    /// The API server's identifier of the call. The text is untrusted.
    pub uid: &'a str,
    /// The key id in the answer of a wrap, or in the request of an unwrap. The text is untrusted.
    /// It is empty when there is no key id.
    pub key_id: &'a str,
    /// The process that called. `None` when it is unknown.
    pub caller: Option<Caller>,
    /// The time from the arrival of the request to its end.
    pub elapsed: Duration,
    /// How the call ended.
    pub outcome: Outcome<'a>,
    /// The keeper's identifier of its request, as in the keeper's own audit log. `None` when no
    /// request was sent or the identifier is unknown.
    pub request_id: Option<&'a str>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// The answer was given to the transport.
    Done,
    /// The call failed for this reason.
    Failed(&'a KmsError),
    /// The call ended without an answer: its caller ended it, its time was up, or its connection ended.
    /// The keeper may have wrapped or unwrapped the seed.
    Abandoned,
}

/// The audit log. Its methods never wait.
pub trait Audit: Debug + Send + Sync + 'static {
    /// Queues an entry.
    ///
    /// # Errors
    /// `audit-log-failing` when this entry or the previous one is lost and the operator chose that
    /// calls then fail. The caller must then fail the call.
    fn record(&self, entry: &Entry<'_>) -> Result<(), KmsError>;
}
