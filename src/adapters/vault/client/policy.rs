//! The policy of a call: to which endpoint it goes, how often it is repeated, and how long it may
//! take.

use std::time::Duration;

use crate::{domain::time::Monotonic, ports::telemetry::KeeperOperation};

/// How often a request may be repeated if it is not known whether the keeper executed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters::vault) enum Repeat {
    /// As often as the retry table allows, because a repetition does no harm: a read, a wrap, an
    /// unwrap, a renewal.
    Freely,
    /// Once: a login, which may use up a secret ID and writes a lease.
    Once,
    /// Never: a wrapping token can be unwrapped only once.
    Never,
}

/// The endpoint for the first try of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters::vault) enum Target {
    /// Any endpoint that serves.
    Any,
    /// This endpoint first.
    Endpoint(usize),
}

/// The policy of a call.
#[derive(Clone, Copy, Debug)]
pub(in crate::adapters::vault) struct CallPolicy {
    /// The name of the operation in telemetry.
    pub(in crate::adapters::vault) operation: KeeperOperation,
    pub(in crate::adapters::vault) target: Target,
    pub(in crate::adapters::vault) repeat: Repeat,
    /// The time after which the request is not sent. The call ends then, with all of its tries,
    /// unless it `waits_longer`.
    pub(in crate::adapters::vault) deadline: Monotonic,
    /// How long after the deadline the call still waits for the answer to a request that was sent
    /// before it.
    pub(in crate::adapters::vault) waits_longer: Duration,
    /// The longest time for one try. `None` means `--vault-request-timeout`.
    pub(in crate::adapters::vault) try_limit: Option<Duration>,
}

impl CallPolicy {
    /// Returns the policy of a call to any endpoint, repeated freely until `deadline`.
    pub(in crate::adapters::vault) const fn new(
        operation: KeeperOperation,
        deadline: Monotonic,
    ) -> Self {
        let (target, repeat) = (Target::Any, Repeat::Freely);
        Self { operation, target, repeat, deadline, waits_longer: Duration::ZERO, try_limit: None }
    }
}

/// One try of a call.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) endpoint: usize,
    /// The endpoints that failed this call before.
    pub(super) avoided: &'a [usize],
    /// Whether the endpoint must answer from its own state. The request then asks for no
    /// forwarding, and a redirect does not count as a failure.
    pub(super) alone: bool,
    /// Whether the call could go to any endpoint.
    pub(super) as_any: bool,
}

impl Attempt<'static> {
    /// Returns a try that asks `endpoint` for its own state.
    pub(super) const fn alone(endpoint: usize) -> Self {
        Self { endpoint, avoided: &[], alone: true, as_any: false }
    }
}
