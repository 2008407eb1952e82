//! What is known of the key, kept current: the one place where a keeper's answers, our proofs
//! and the clock come together. The use cases read it; the observer feeds it.

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
    told_standing: Option<Standing>,
}

/// The current knowledge of one key. Its lock is held only to read or replace values.
#[derive(Debug)]
pub struct KeyWatch {
    ports: Ports,
    outage_policy: OutagePolicy,
    state: RwLock<State>,
}

impl KeyWatch {
    /// Knowledge of nothing yet.
    #[must_use]
    pub fn new(
        ports: Ports,
        ring: KeyRing,
        outage_policy: OutagePolicy,
        outage_grace: Duration,
    ) -> Self {
        let state = State { known: Knowledge::new(ring, outage_grace), told_standing: None };
        Self { ports, outage_policy, state: RwLock::new(state) }
    }

    /// The ports it works through.
    #[must_use]
    pub const fn ports(&self) -> &Ports {
        &self.ports
    }

    /// How `Status` stands now, and the version that writes where one is known. Never waits.
    #[must_use]
    pub fn standing(&self) -> (Standing, Option<Writer>) {
        let now = self.ports.clock.now();
        self.read().known.standing(now, self.outage_policy)
    }

    /// All that is known now, for those who look on. Never waits.
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
            writer,
        }
    }

    /// The version to wrap with now, proven against the keeper.
    ///
    /// An outage does not refuse it: the wrap itself then tells.
    ///
    /// # Errors
    /// Why nothing must be wrapped now.
    pub fn writer(&self) -> Result<Writer, KmsError> {
        let now = self.ports.clock.now();
        self.read().known.may_write(now)
    }

    /// Whether metadata is known that was asked for at `since` or later.
    pub(super) fn is_read_since(&self, since: Monotonic) -> bool {
        self.read().known.is_read_since(since)
    }

    /// Why the metadata could not be read just now.
    pub(super) fn unread(&self) -> KmsError {
        let failure = self.read().known.evidence.metadata_failure().cloned();
        failure.unwrap_or_else(|| {
            KmsError::new(
                Code::KeeperTimeout,
                "the key's metadata was not read in time",
                "check the keeper and the network between it and this node",
            )
        })
    }

    /// Whether `writer` still is what its id says, by all that is known now.
    ///
    /// # Errors
    /// The incident if there is one, and [`Code::KeyReplaced`] when the id names its version no
    /// more.
    pub(super) fn vouch_for(&self, writer: &Writer) -> Result<(), KmsError> {
        self.read().known.vouch_for(writer)
    }

    /// What `key_id` means now.
    #[must_use]
    pub fn resolve(&self, key_id: &str) -> Resolution {
        self.read().known.ring.resolve(key_id)
    }

    /// Whether `version` is above the newest version ever seen. Never while none was seen.
    pub(super) fn is_above_the_newest(&self, version: KekVersion) -> bool {
        self.read().known.ring.newest().is_some_and(|newest| version > newest)
    }

    /// Reads the key's metadata and takes it in.
    pub async fn read_metadata(&self) {
        let Ports { kek, clock, telemetry } = &self.ports;
        let asked = clock.now();
        let outcome = kek.describe(asked.after(CALL_BUDGET)).await;
        let (now, wall) = (clock.now(), clock.wall());
        // An answer that nobody waited for while it lay there is not one of now.
        let late = now.since(asked) > CALL_BUDGET.saturating_mul(2);
        let outcome = if late { Err(overslept()) } else { outcome };
        let error = outcome.as_ref().err().cloned();
        let news = self.write().known.take_in(outcome, asked, now, wall);
        telemetry.record(Event::Observed { error: error.as_ref() });
        for change in &news.changes {
            telemetry.record(Event::Ring(change));
        }
        if let Some(warnings) = &news.warnings {
            telemetry.record(Event::Warned(warnings));
        }
        self.tell();
    }

    /// Proves what will write: every version that has not been proven yet, and the one that
    /// writes now if its last proof is older than `max_age`.
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
        self.tell();
    }

    /// Whether anything fails or waits for its first proof, so that it is worth to look again soon.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        let now = self.ports.clock.now();
        self.read().known.is_unsettled(now)
    }

    /// Reports what `Status` answers and which version writes, where either changed.
    pub fn tell(&self) {
        let now = self.ports.clock.now();
        let (standing, writer, takeover) = {
            let mut state = self.write();
            let writer_news = state.known.note_writer(now);
            let (standing, _) = state.known.standing(now, self.outage_policy);
            let takeover = state.known.takeover(now);
            let told = state.told_standing.as_ref().map(Standing::kind);
            let standing_news = (told != Some(standing.kind())).then(|| {
                state.told_standing = Some(standing.clone());
                standing
            });
            (standing_news, writer_news, takeover)
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

fn overslept() -> KmsError {
    KmsError::new(
        Code::KeeperTimeout,
        "the key was read too slowly to say what it is now",
        "check this node's load, and the keeper's",
    )
}
