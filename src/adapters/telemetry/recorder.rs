//! Turns events of the program into log lines and metrics.

use std::sync::Arc;

use tonic::Code as Grpc;
use tracing::{debug, error, info, warn};

use super::{
    expiry_warnings::ExpiryWarnings,
    last_errors::LastErrors,
    metrics::Metrics,
    repeats::Repeats,
    text::{UID_MAX, printable},
};
use crate::{
    domain::{
        error::{Code, KmsError},
        health::Standing,
        rotation::{RingChange, Writer},
        time::UnixTime,
    },
    ports::{
        clock::Clock,
        telemetry::{Event, Expiring, Method, Telemetry},
    },
};

/// The operation that an error came from. Repeats are counted for each place and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Call(Method),
    Lagging,
    Metadata,
    Proof,
    Session,
}

/// Logs and counts events.
#[derive(Debug)]
pub struct Recorder {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    repeats: Repeats<(Place, Option<Code>)>,
    last_errors: LastErrors,
    expiries: ExpiryWarnings,
}

impl Recorder {
    /// Returns a recorder that counts in `metrics`.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        Self {
            metrics,
            clock,
            repeats: Repeats::new(),
            last_errors: LastErrors::default(),
            expiries: ExpiryWarnings::default(),
        }
    }

    /// Returns the last errors that were logged.
    #[must_use]
    pub const fn last_errors(&self) -> &LastErrors {
        &self.last_errors
    }

    /// Returns the items that expire, the first to expire first, and when each expires.
    #[must_use]
    pub fn expiries(&self) -> Vec<(Expiring, UnixTime)> {
        self.expiries.first_to_last()
    }

    /// Logs a failure. The first of its kind in a minute is a warning, the others have level debug.
    fn failed(&self, place: Place, what: &'static str, error: &KmsError, uid: Option<&str>) {
        self.last_errors.record(what, error, self.clock.wall());
        let (code, cause, remedy) = (error.code().as_str(), error.cause(), error.remedy());
        let uid = uid.map(|uid| printable(uid, UID_MAX));
        match self.repeats.check((place, Some(error.code())), self.clock.now()) {
            Some(0) => warn!(code, cause, remedy, uid, "{what}"),
            Some(repeated) => warn!(code, cause, remedy, uid, repeated, "{what}"),
            None => debug!(code, cause, remedy, uid, "{what}"),
        }
    }

    fn ring(&self, change: &RingChange) {
        match change {
            RingChange::Appeared(version) => {
                self.metrics.appeared(*version);
                info!(version = version.get(), "key version found");
            }
            RingChange::Retired(version) => {
                warn!(version = version.get(), "key version can no longer decrypt");
            }
            RingChange::Lagging { answered, known } => {
                if self.repeats.check((Place::Lagging, None), self.clock.now()).is_some() {
                    warn!(
                        answered = answered.get(),
                        known = known.get(),
                        "the keeper answered with an older state of the key; ignored for now"
                    );
                }
            }
            RingChange::IncidentRaised(incident) => {
                self.metrics.incident(incident);
                error!(
                    code = incident.code().as_str(),
                    cause = incident.cause(),
                    remedy = incident.remedy(),
                    "INCIDENT: the keeper's key is not the one that was known"
                );
            }
            RingChange::IncidentCleared => info!("incident over: the keeper has the known key"),
        }
    }

    fn standing(&self, standing: &Standing) {
        self.metrics.standing(standing);
        match standing {
            Standing::Healthy => info!("healthy"),
            Standing::Failing(e) if matches!(e.code(), Code::ProofPending | Code::Starting) => {
                debug!(code = e.code().as_str(), "not ready yet");
            }
            Standing::Ailing(e) | Standing::Failing(e) => {
                let (code, cause, remedy) = (e.code().as_str(), e.cause(), e.remedy());
                let writing = matches!(standing, Standing::Ailing(_));
                error!(code, cause, remedy, writing, "unhealthy");
            }
        }
    }

    fn writing(&self, writer: &Writer) {
        self.metrics.writing(writer);
        info!(
            version = writer.version.get(),
            key_id = writer.key_id.as_str(),
            key_id_hash = writer.key_id.hash(),
            "this key version writes"
        );
    }
}

impl Telemetry for Recorder {
    fn record(&self, event: Event<'_>) {
        match event {
            Event::Answered { method, uid, caller, elapsed, status, error } => {
                self.metrics.answered(method, status, elapsed);
                if let Some(caller) = caller {
                    self.metrics.called_by(caller.uid, status == i32::from(Grpc::Ok));
                }
                match error {
                    Some(error) if method == Method::Status => {
                        // `standing` logs each change. The API server repeats this call for ever.
                        debug!(code = error.code().as_str(), "Status failed");
                    }
                    Some(error) => {
                        self.failed(Place::Call(method), method.as_str(), error, Some(uid));
                    }
                    None => {
                        let (method, uid) = (method.as_str(), printable(uid, UID_MAX));
                        if status == i32::from(Grpc::Ok) {
                            debug!(method, uid, "answered");
                        } else {
                            debug!(method, uid, "ended without an answer");
                        }
                    }
                }
            }
            Event::KeeperCalled { operation, elapsed, error } => {
                self.metrics.keeper_called(operation, elapsed, error);
            }
            Event::Retried(reason) => {
                self.metrics.keeper.retried(reason);
                debug!(reason, "a request to the keeper is sent again");
            }
            Event::Breaker { endpoint, state } => {
                self.metrics.keeper.breaker(endpoint, state);
                debug!(endpoint, state = state.as_str(), "the breaker of an endpoint changed");
            }
            Event::Stale { endpoint, stale } => self.metrics.keeper.stale(endpoint, stale),
            Event::Coalesced => self.metrics.keeper.coalesced(),
            Event::Batched { size } => self.metrics.keeper.batched(size),
            Event::Queued { depth } => self.metrics.keeper.queued(depth),
            Event::Observed { error } => {
                if let Some(error) = error {
                    self.failed(Place::Metadata, "cannot read the key", error, None);
                } else {
                    debug!("key read");
                }
                // The key is read at short intervals, so each read also checks the expiries.
                self.expiries.warn(self.clock.wall());
            }
            Event::Ring(change) => self.ring(change),
            Event::Warned(warnings) => {
                for warning in warnings {
                    warn!(setting = warning.setting, "{}", warning.danger);
                }
            }
            Event::Writing(writer) => self.writing(writer),
            Event::Takeover(next) => self.metrics.takeover(next.map(|(_, wait)| wait)),
            Event::Proven { error: Some(error), .. } => {
                self.failed(Place::Proof, "the key version failed its proof", error, None);
            }
            Event::Proven { version, error: None } => {
                self.metrics.proven(self.clock.now());
                debug!(version = version.get(), "key version proven");
            }
            Event::Standing(standing) => self.standing(standing),
            Event::LegacyRead => self.metrics.legacy_read(),
            Event::ConnectionEnded(reason) => self.metrics.connection_ended(reason),
            Event::PeerDenied => self.metrics.peer_denied(),
            Event::AuthorityRewritten => self.metrics.authority_rewritten(),
            Event::LoggedIn { ttl } => {
                self.metrics.keeper.logged_in(ttl);
                info!(ttl_s = ttl.map(|ttl| ttl.as_secs()), "logged in to the keeper");
            }
            Event::Renewed { ttl } => {
                self.metrics.keeper.renewed(ttl);
                debug!(ttl_s = ttl.map(|ttl| ttl.as_secs()), "token renewed");
            }
            Event::Expires { what, at } => {
                self.metrics.expires(what, at);
                self.expiries.set(what, at);
                self.expiries.warn(self.clock.wall());
                debug!(what = what.label, at_s = at.map(UnixTime::secs), "expiry known");
            }
            Event::SessionClosed => self.metrics.keeper.session_closed(),
            Event::SessionFailed { error, wait } => {
                self.metrics.keeper.session_failed(error);
                debug!(wait_s = wait.as_secs(), "the next login or renewal is scheduled");
                self.failed(Place::Session, "no session with the keeper", error, None);
            }
        }
    }
}
