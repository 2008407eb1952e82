//! Holds the current state of the key. The observer and refreshes update it from the keeper's
//! answers and from proofs; the use cases read it.

use std::{
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use super::{
    error::{Code, KmsError},
    health::{OutagePolicy, Standing},
    key::KekVersion,
    knowledge::Knowledge,
    proof,
    rotation::{KeyRing, Resolution, Writer},
    time::{CALL_BUDGET, Monotonic},
    view::KeyView,
};
use crate::ports::{Ports, telemetry::Event};

#[derive(Debug)]
struct State {
    known: Knowledge,
    reported_standing: Option<Standing>,
}

/// The current state of one key. Its lock is never held across a call to the keeper.
#[derive(Debug)]
pub struct KeyWatch {
    ports: Ports,
    outage_policy: OutagePolicy,
    state: RwLock<State>,
}

impl KeyWatch {
    /// Makes the state before the first answer of the keeper. `outage_grace` is the time before an
    /// outage changes the health.
    #[must_use]
    pub fn new(
        ports: Ports,
        ring: KeyRing,
        outage_policy: OutagePolicy,
        outage_grace: Duration,
    ) -> Self {
        let state = State { known: Knowledge::new(ring, outage_grace), reported_standing: None };
        Self { ports, outage_policy, state: RwLock::new(state) }
    }

    /// Returns the ports that the domain uses.
    #[must_use]
    pub const fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Returns the health now, and the version that writes, if any. Never waits for the keeper.
    #[must_use]
    pub fn standing(&self) -> (Standing, Option<Writer>) {
        let now = self.ports.clock.now();
        self.read().known.standing(now, self.outage_policy)
    }

    /// Returns the view of the key for `/statusz`, logs and `check`. Never waits for the keeper.
    #[must_use]
    pub fn view(&self) -> KeyView {
        let now = self.ports.clock.now();
        let known = &self.read().known;
        let (standing, writer) = known.standing(now, self.outage_policy);
        let proven = writer.as_ref().and_then(|w| known.evidence.proven_at(w.version));
        KeyView {
            standing,
            versions: known.ring.versions(),
            takeover: known.takeover(now),
            metadata_age: known.evidence.metadata_age(now),
            proof_age: proven.map(|at| now.since(at)),
            writing_for: writer.as_ref().map(|writer| known.writing_for(writer, now)),
            writer,
        }
    }

    /// Returns the proven version to wrap with now. During an outage of the keeper it still returns
    /// the version; the wrap itself then fails.
    ///
    /// # Errors
    /// The reason why nothing may be wrapped now.
    pub fn writer(&self) -> Result<Writer, KmsError> {
        let now = self.ports.clock.now();
        self.read().known.writer_if_allowed(now)
    }

    /// Returns whether a read of the metadata that started at `since` or later has succeeded.
    pub(super) fn is_read_since(&self, since: Monotonic) -> bool {
        self.read().known.is_read_since(since)
    }

    /// Returns why the last read of the metadata failed. If it has not ended yet, returns
    /// [`Code::KeeperTimeout`].
    pub(super) fn read_error(&self) -> KmsError {
        let failure = self.read().known.evidence.metadata_failure().cloned();
        failure.unwrap_or_else(|| {
            KmsError::new(
                Code::KeeperTimeout,
                "the key's metadata was not read in time",
                "check the keeper and the network between it and this node",
            )
        })
    }

    /// Checks that the key id of `writer` still names its version.
    ///
    /// # Errors
    /// The incident if there is one; [`Code::VersionRetired`] when the version can no longer
    /// unwrap; [`Code::KeyReplaced`] when the id no longer names the version.
    pub(super) fn check_writer(&self, writer: &Writer) -> Result<(), KmsError> {
        self.read().known.check_writer(writer)
    }

    /// Finds the version that `key_id` names now.
    #[must_use]
    pub fn resolve(&self, key_id: &str) -> Resolution {
        self.read().known.ring.resolve(key_id)
    }

    /// Returns whether the operator, and not the key, says which version `key_id` names.
    pub(super) fn is_accepted(&self, key_id: &str) -> bool {
        self.read().known.ring.is_accepted(key_id)
    }

    /// Returns whether `version` is above the newest version that this process has seen. Returns
    /// `false` before the first answer of the keeper.
    pub(super) fn is_above_the_newest(&self, version: KekVersion) -> bool {
        self.read().known.ring.newest().is_some_and(|newest| version > newest)
    }

    /// Reads the key's metadata, records the result and reports what changed.
    pub async fn read_metadata(&self) {
        let Ports { kek, clock, telemetry } = &self.ports;
        let asked = clock.now();
        let outcome = kek.describe(asked.after(CALL_BUDGET)).await;
        let (now, wall) = (clock.now(), clock.wall());
        // A call ends within its budget. If this process took much longer to read the answer (it
        // was suspended, or had no CPU time), the answer is too old.
        let late = now.since(asked) > CALL_BUDGET.saturating_mul(2);
        let outcome = if late { Err(late_answer()) } else { outcome };
        let error = outcome.as_ref().err().cloned();
        let update = self.write().known.record_read(outcome, asked, now, wall);
        telemetry.record(Event::Observed { error: error.as_ref() });
        for change in &update.changes {
            telemetry.record(Event::Ring(change));
        }
        if let Some(warnings) = &update.warnings {
            telemetry.record(Event::Warned(warnings));
        }
        self.report();
    }

    /// Proves all current and future writers that are not proven yet, and the writing version if
    /// its last proof is older than `max_age`.
    pub async fn prove(&self, max_age: Duration) {
        let due = self.read().known.due_proofs(max_age, self.ports.clock.now());
        for (writer, was_proven) in due {
            let outcome = proof::attempt(&self.ports, &writer, !was_proven).await;
            let error = outcome.as_ref().err().cloned();
            let now = self.ports.clock.now();
            self.write().known.evidence.proof_made(writer.version, outcome, now);
            let event = Event::Proven { version: writer.version, error: error.as_ref() };
            self.ports.telemetry.record(event);
        }
        self.report();
    }

    /// Returns whether anything fails or a version waits for its first proof. The observer then
    /// reads the metadata more often.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        let now = self.ports.clock.now();
        self.read().known.is_unsettled(now)
    }

    /// Reports the health and the writing version when they changed, and the next takeover always.
    pub fn report(&self) {
        let now = self.ports.clock.now();
        let (standing, writer, takeover) = {
            let mut state = self.write();
            let new_writer = state.known.note_writer(now);
            let (standing, _) = state.known.standing(now, self.outage_policy);
            let takeover = state.known.takeover(now);
            let reported = state.reported_standing.as_ref().map(Standing::kind);
            let new_standing = (reported != Some(standing.kind())).then(|| {
                state.reported_standing = Some(standing.clone());
                standing
            });
            (new_standing, new_writer, takeover)
        };
        let telemetry = &self.ports.telemetry;
        if let Some(writer) = &writer {
            telemetry.record(Event::Writing(writer));
        }
        if let Some(standing) = &standing {
            telemetry.record(Event::Standing(standing));
        }
        telemetry.record(Event::Takeover(takeover));
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn late_answer() -> KmsError {
    KmsError::new(
        Code::KeeperTimeout,
        "the read of the key's metadata took so long that its answer may be out of date",
        "check the load of this node and of the keeper",
    )
}
