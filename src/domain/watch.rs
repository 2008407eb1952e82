//! What is known of the key, kept current: the one place where a keeper's answers, our proofs
//! and the clock come together. The use cases read it; the observer feeds it.

use std::{
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use super::{
    error::{Code, KmsError},
    health::{Evidence, OutagePolicy, Standing},
    key::{KekSnapshot, KeyWarning},
    proof,
    rotation::{KeyRing, Resolution, RingChange, Writer},
    time::{CALL_BUDGET, Monotonic, UnixTime},
    view::KeyView,
};
use crate::ports::{Ports, telemetry::Event};

/// How long a read of the metadata vouches for wraps: see [`KeyWatch::vouch_for`].
const VOUCH_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct State {
    ring: KeyRing,
    evidence: Evidence,
    warned: Vec<KeyWarning>,
    told_standing: Option<Standing>,
    told_writer: Option<Writer>,
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
        let state = State {
            ring,
            evidence: Evidence::new(outage_grace),
            warned: Vec::new(),
            told_standing: None,
            told_writer: None,
        };
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
        self.read().standing(now, self.outage_policy)
    }

    /// All that is known now, for those who look on. Never waits.
    #[must_use]
    pub fn view(&self) -> KeyView {
        let now = self.ports.clock.now();
        let state = self.read();
        let (standing, writer) = state.standing(now, self.outage_policy);
        let proven = writer.as_ref().and_then(|w| state.evidence.proven_at(w.version));
        KeyView {
            standing,
            versions: state.ring.versions(),
            takeover: state.ring.next_takeover(now),
            metadata_age: state.evidence.metadata_age(now),
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
        self.read().may_write(now)
    }

    /// Whether the key's metadata was read within the last [`VOUCH_FOR`].
    #[must_use]
    pub(super) fn is_fresh(&self) -> bool {
        let now = self.ports.clock.now();
        self.read().evidence.metadata_age(now).is_some_and(|age| age < VOUCH_FOR)
    }

    /// Whether `writer` still is what its id says, by all that is known now.
    ///
    /// # Errors
    /// The incident if there is one, and [`Code::KeyReplaced`] when the id names its version no
    /// more.
    pub(super) fn vouch_for(&self, writer: &Writer) -> Result<(), KmsError> {
        let state = self.read();
        if let Some(incident) = state.ring.incident() {
            return Err(incident.clone());
        }
        let code = match state.ring.resolve(writer.key_id.as_str()) {
            Resolution::Known(version) if version == writer.version => return Ok(()),
            Resolution::Archived(_) => Code::VersionRetired,
            _ => Code::KeyReplaced,
        };
        let cause = format!("key version {} changed while it wrapped", writer.version);
        Err(KmsError::new(code, cause, "nothing: the API server asks again"))
    }

    /// What `key_id` means now.
    #[must_use]
    pub fn resolve(&self, key_id: &str) -> Resolution {
        self.read().ring.resolve(key_id)
    }

    /// Why the key's metadata is not known, if it never was.
    #[must_use]
    pub fn never_seen(&self) -> Option<KmsError> {
        let now = self.ports.clock.now();
        let state = self.read();
        if state.ring.snapshot().is_some() {
            return None;
        }
        state.evidence.metadata_verdict(now).err()
    }

    /// Reads the key's metadata, and proves at once what writes from then on.
    pub(super) async fn look(&self) {
        self.read_metadata().await;
        self.prove(Duration::MAX).await;
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
        let (changes, warnings) = self.write().take_in(outcome, now, wall);
        telemetry.record(Event::Observed { error: error.as_ref() });
        for change in &changes {
            telemetry.record(Event::Ring(change));
        }
        if let Some(warnings) = warnings {
            telemetry.record(Event::Warned(&warnings));
        }
        self.tell();
    }

    /// Proves what will write: every version that has not been proven yet, and the one that
    /// writes now if its last proof is older than `max_age`.
    pub async fn prove(&self, max_age: Duration) {
        for (writer, was_proven) in self.due_proofs(max_age) {
            let outcome = proof::attempt(&self.ports, &writer, !was_proven).await;
            let error = outcome.as_ref().err().cloned();
            // That our own queue is full says nothing of the keeper, and what fills it is requests.
            if error.as_ref().is_some_and(|error| error.code() == Code::Overloaded) {
                continue;
            }
            let now = self.ports.clock.now();
            self.write().evidence.proof_made(writer.version, outcome, now);
            let event = Event::Proven { version: writer.version, error: error.as_ref() };
            self.ports.telemetry.record(event);
        }
        self.tell();
    }

    /// Whether anything is failing, so that it is worth to look again soon.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        let state = self.read();
        state.evidence.is_failing() || state.ring.incident().is_some()
    }

    /// Reports what `Status` answers and which version writes, where either changed.
    pub fn tell(&self) {
        let now = self.ports.clock.now();
        let (standing, writer, takeover) = {
            let mut state = self.write();
            let (standing, writer) = state.standing(now, self.outage_policy);
            let takeover = state.ring.next_takeover(now);
            let told = state.told_standing.as_ref().map(Standing::kind);
            let standing_news = (told != Some(standing.kind())).then(|| {
                state.told_standing = Some(standing.clone());
                standing
            });
            let writer_news = writer.filter(|w| state.told_writer.as_ref() != Some(w));
            if let Some(writer) = &writer_news {
                state.told_writer = Some(writer.clone());
                state.evidence.forget_below(writer.version);
            }
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

    fn due_proofs(&self, max_age: Duration) -> Vec<(Writer, bool)> {
        let now = self.ports.clock.now();
        let state = self.read();
        let writing = state.ring.writer(now).map(|writer| writer.version).ok();
        let mut due = Vec::new();
        for writer in state.ring.writers_to_be(now) {
            let proven = state.evidence.is_proven(writer.version);
            let aged =
                state.evidence.proven_at(writer.version).is_none_or(|at| now.since(at) >= max_age);
            if !proven || (aged && writing == Some(writer.version)) {
                due.push((writer, proven));
            }
        }
        due
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_in(
        &mut self,
        outcome: Result<KekSnapshot, KmsError>,
        now: Monotonic,
        wall: UnixTime,
    ) -> (Vec<RingChange>, Option<Vec<KeyWarning>>) {
        let snapshot = match outcome {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.evidence.metadata_read(Err(error), now);
                return (Vec::new(), None);
            }
        };
        self.evidence.metadata_read(Ok(()), now);
        let warnings = (self.warned != snapshot.warnings).then(|| snapshot.warnings.clone());
        self.warned.clone_from(&snapshot.warnings);
        (self.ring.observe(snapshot, now, wall), warnings)
    }

    fn standing(&self, now: Monotonic, policy: OutagePolicy) -> (Standing, Option<Writer>) {
        let writer = self.ring.writer(now);
        let metadata = self.evidence.metadata_verdict(now);
        let proof = match &writer {
            Ok(writer) => self.evidence.proof_verdict(writer.version, now),
            Err(error) => Err(error.clone()),
        };
        let verdict = match proof {
            // An outage of the metadata does not hide an incident, a flaw or a failed proof.
            Err(error) if is_conclusive(&error) => Err(error),
            proof => metadata.and(proof),
        };
        let writer = writer.ok();
        let standing = match verdict {
            Ok(()) => Standing::Healthy,
            Err(error)
                if policy == OutagePolicy::KeepWriting
                    && writer.as_ref().is_some_and(|w| self.outage_after_proof(w, &error)) =>
            {
                Standing::Ailing(error)
            }
            Err(error) => Standing::Failing(error),
        };
        (standing, writer)
    }

    /// The version to wrap with, unless something other than an outage speaks against it.
    fn may_write(&self, now: Monotonic) -> Result<Writer, KmsError> {
        match self.standing(now, OutagePolicy::KeepWriting) {
            (Standing::Failing(error), _) => Err(error),
            (Standing::Healthy | Standing::Ailing(_), _) => self.ring.writer(now),
        }
    }

    fn outage_after_proof(&self, writer: &Writer, error: &KmsError) -> bool {
        error.code().is_outage() && self.evidence.proven_at(writer.version).is_some()
    }
}

/// Whether `error` says something about the key or the version, and not that nothing is known.
const fn is_conclusive(error: &KmsError) -> bool {
    !error.code().is_outage() && !matches!(error.code(), Code::ProofPending | Code::Starting)
}

fn overslept() -> KmsError {
    KmsError::new(
        Code::KeeperTimeout,
        "the key was read too slowly to say what it is now",
        "check this node's load, and the keeper's",
    )
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
