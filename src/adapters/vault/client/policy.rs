//! How a call is sent: to which endpoint, how often, and for how long.

use std::time::Duration;

use crate::{domain::time::Monotonic, ports::telemetry::KeeperOperation};

/// How a request may be repeated when it is not known whether it was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters::vault) enum Repeat {
    /// It changes nothing: a read, a wrap, an unwrap, a renewal.
    Freely,
    /// Once: a login, which may use up a secret ID and writes a lease.
    Once,
    /// Never: what a wrapping token wraps can be taken out once.
    Never,
}

/// Which endpoint a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters::vault) enum Target {
    /// Any that serves.
    Any,
    /// This endpoint first.
    Endpoint(usize),
}

/// How a request is sent.
#[derive(Clone, Copy, Debug)]
pub(in crate::adapters::vault) struct CallPolicy {
    /// What telemetry calls it.
    pub(in crate::adapters::vault) operation: KeeperOperation,
    pub(in crate::adapters::vault) target: Target,
    pub(in crate::adapters::vault) repeat: Repeat,
    /// When the call ends, all of its tries included.
    pub(in crate::adapters::vault) deadline: Monotonic,
    /// The most time for one try, where it is not `--vault-request-timeout`.
    pub(in crate::adapters::vault) try_limit: Option<Duration>,
}

impl CallPolicy {
    /// To any endpoint, repeated freely until `deadline`.
    pub(in crate::adapters::vault) const fn new(
        operation: KeeperOperation,
        deadline: Monotonic,
    ) -> Self {
        let (target, repeat) = (Target::Any, Repeat::Freely);
        Self { operation, target, repeat, deadline, try_limit: None }
    }
}

/// One try of a call.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) endpoint: usize,
    /// The endpoints that failed this call before.
    pub(super) avoided: &'a [usize],
    /// Whether the endpoint is asked for what it knows by itself: it is not to pass the request on,
    /// and a redirection says nothing against it.
    pub(super) alone: bool,
    /// Whether any endpoint would have been asked.
    pub(super) as_any: bool,
}

impl Attempt<'static> {
    /// A question to `endpoint` for its own sake.
    pub(super) const fn alone(endpoint: usize) -> Self {
        Self { endpoint, avoided: &[], alone: true, as_any: false }
    }
}
