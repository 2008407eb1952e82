//! Combines the key ring with the evidence about the keeper, and decides which version writes and
//! what `Status` answers. Contains plain values; [`super::watch::KeyWatch`] is its only user.

use std::time::Duration;

use super::{
    error::{Code, KmsError},
    health::{Evidence, OutagePolicy, Standing},
    key::{KekSnapshot, KekVersion, KeyWarning},
    rotation::{KeyRing, Resolution, RingChange, Writer},
    time::{Monotonic, UnixTime},
};

/// How long the previous version goes on writing while the version that is due waits for its first
/// proof. The time counts from when this process noticed that the version is due. It allows about
/// twenty attempts, and all nodes write with the same version soon.
const FIRST_PROOF_TIMEOUT: Duration = Duration::from_mins(1);

/// What one answer of the keeper changed.
#[derive(Debug, Default)]
pub(super) struct Update {
    pub(super) changes: Vec<RingChange>,
    /// The warnings about the key. `None` when they are the same as before.
    pub(super) warnings: Option<Vec<KeyWarning>>,
}

/// The state of one key: what the keeper has answered, and what this process has proven.
#[derive(Debug)]
pub(super) struct Knowledge {
    pub(super) ring: KeyRing,
    pub(super) evidence: Evidence,
    /// The warnings of the last answer.
    warned: Vec<KeyWarning>,
    /// When the read that gave the newest answer started. An outage is not an answer, a refusal is.
    answered: Option<Monotonic>,
    /// When the read that gave the newest metadata started.
    read: Option<Monotonic>,
    /// The version that the ring chose to write, and since when. Outages are left out: the time is
    /// later by their length.
    due: Option<(KekVersion, Monotonic)>,
    /// The version that [`Self::note_writer`] last returned, and when.
    noted_writer: Option<(Writer, Monotonic)>,
}

impl Knowledge {
    pub(super) const fn new(ring: KeyRing, outage_grace: Duration) -> Self {
        let evidence = Evidence::new(outage_grace);
        Self {
            ring,
            evidence,
            warned: Vec::new(),
            answered: None,
            read: None,
            due: None,
            noted_writer: None,
        }
    }

    /// Records the result of a read of the key's metadata that started at `asked` and ended at
    /// `now`. `wall` is the local clock at the end. Returns what the result changed.
    ///
    /// Reads can overlap. A result is ignored when its read started before the read that gave the
    /// newest answer. An outage is not an answer, so a read that started before it still counts.
    pub(super) fn record_read(
        &mut self,
        outcome: Result<KekSnapshot, KmsError>,
        asked: Monotonic,
        now: Monotonic,
        wall: UnixTime,
    ) -> Update {
        if self.answered.is_some_and(|newest| asked < newest) {
            return Update::default();
        }
        if !outcome.as_ref().is_err_and(|error| error.code().is_outage()) {
            self.answered = Some(asked);
        }
        let snapshot = match outcome {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.evidence.metadata_read(Err(error), now);
                return Update::default();
            }
        };
        self.read = Some(asked);
        self.exclude_outage(now);
        self.evidence.metadata_read(Ok(()), now);
        let warnings = (self.warned != snapshot.warnings).then(|| snapshot.warnings.clone());
        self.warned.clone_from(&snapshot.warnings);
        let changes = self.ring.observe(snapshot, now, wall);
        self.note_due(now);
        Update { changes, warnings }
    }

    /// Notes which version writes at `now`. Returns it when it differs from the last noted one.
    pub(super) fn note_writer(&mut self, now: Monotonic) -> Option<Writer> {
        self.note_due(now);
        let writer = self.writer(now).ok()?;
        // Keep the proofs of lower versions until this version is proven: one of them may write
        // again.
        if self.evidence.is_proven(writer.version) {
            self.evidence.forget_below(writer.version);
        }
        if self.noted_writer.as_ref().is_some_and(|(noted, _)| *noted == writer) {
            return None;
        }
        self.noted_writer = Some((writer.clone(), now));
        Some(writer)
    }

    /// Returns how long `writer` has been the version that writes, without a change between. Zero
    /// until it was noted.
    pub(super) fn writing_for(&self, writer: &Writer, now: Monotonic) -> Duration {
        match &self.noted_writer {
            Some((noted, since)) if noted == writer => now.since(*since),
            _ => Duration::ZERO,
        }
    }

    /// Leaves the outage that ends at `now`, if there is one, out of the time for which the version
    /// has been due.
    fn exclude_outage(&mut self, now: Monotonic) {
        let (Some((_, since)), Some(age)) = (&mut self.due, self.evidence.metadata_age(now)) else {
            return;
        };
        if self.evidence.metadata_failure().is_some_and(|failure| failure.code().is_outage()) {
            let began = now.before(age).max(*since);
            *since = since.after(now.since(began));
        }
    }

    fn note_due(&mut self, now: Monotonic) {
        if let Ok(Writer { version, .. }) = self.ring.writer(now)
            && self.due.is_none_or(|(due, _)| due != version)
        {
            self.due = Some((version, now));
        }
    }

    /// Returns the version that writes at `now`: the one that is due ([`KeyRing::writer`]).
    ///
    /// While the due version waits for its first proof, another proven version writes, for
    /// [`FIRST_PROOF_TIMEOUT`] at most. That is the version that wrote before if the keeper still
    /// allows it, otherwise the newest proven version below the due one.
    ///
    /// # Errors
    /// Those of [`KeyRing::writer`].
    pub(super) fn writer(&self, now: Monotonic) -> Result<Writer, KmsError> {
        let due = self.ring.writer(now)?;
        if !self.evidence.awaits_proof(due.version)
            || self.due_for(&due, now) >= FIRST_PROOF_TIMEOUT
        {
            return Ok(due);
        }
        let noted = self.noted_writer.iter().map(|(noted, _)| noted);
        let noted = noted.filter(|noted| self.ring.may_wrap(noted)).cloned();
        let mut others = noted.chain(self.ring.writers_before(due.version));
        let proven = others.find(|writer| self.evidence.proven_at(writer.version).is_some());
        Ok(proven.unwrap_or(due))
    }

    /// Returns for how long `due` had been due at the last read of the metadata, without the outages.
    fn due_for(&self, due: &Writer, now: Monotonic) -> Duration {
        match (self.due, self.evidence.metadata_age(now)) {
            (Some((version, since)), Some(age)) if version == due.version => {
                now.before(age).since(since)
            }
            _ => Duration::ZERO,
        }
    }

    /// Returns the health at `now`, and the version that writes, if any.
    pub(super) fn standing(
        &self,
        now: Monotonic,
        policy: OutagePolicy,
    ) -> (Standing, Option<Writer>) {
        let writer = self.writer(now);
        let metadata = self.evidence.metadata_verdict(now);
        let proof = match &writer {
            Ok(writer) => self.evidence.proof_verdict(writer.version, now),
            Err(error) => Err(error.clone()),
        };
        let verdict = match proof {
            // Report an incident, a flaw or a failed proof also during an outage of the metadata.
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

    /// Returns the version to wrap with. An outage after the version's proof does not prevent the
    /// wrap.
    ///
    /// # Errors
    /// The reason why nothing may be written at `now`.
    pub(super) fn writer_if_allowed(&self, now: Monotonic) -> Result<Writer, KmsError> {
        match self.standing(now, OutagePolicy::KeepWriting) {
            (Standing::Failing(error), _) => Err(error),
            (Standing::Healthy | Standing::Ailing(_), _) => self.writer(now),
        }
    }

    /// Returns whether a read of the metadata that started at `since` or later has succeeded.
    pub(super) fn is_read_since(&self, since: Monotonic) -> bool {
        self.read.is_some_and(|asked| asked >= since)
    }

    /// Checks that the key id of `writer` still names its version.
    ///
    /// # Errors
    /// The incident if there is one; [`Code::VersionRetired`] when the version can no longer
    /// unwrap; [`Code::KeyReplaced`] when the id no longer names the version.
    pub(super) fn check_writer(&self, writer: &Writer) -> Result<(), KmsError> {
        if let Some(incident) = self.ring.incident() {
            return Err(incident.clone());
        }
        let code = match self.ring.resolve(writer.key_id.as_str()) {
            Resolution::Known(version) if version == writer.version => return Ok(()),
            Resolution::Archived(_) => Code::VersionRetired,
            _ => Code::KeyReplaced,
        };
        let cause = format!("key version {} changed during the wrap", writer.version);
        Err(KmsError::new(code, cause, "no action is needed: the API server calls again"))
    }

    /// Returns the versions to prove at `now`, the most urgent first. The flag of each version says
    /// whether its last proof succeeded.
    ///
    /// These are all current and future writers without a successful last proof, and the writing
    /// version if its proof is older than `max_age`.
    pub(super) fn due_proofs(&self, max_age: Duration, now: Monotonic) -> Vec<(Writer, bool)> {
        let writing = self.writer(now).ok();
        let writers = self.ring.current_and_future_writers(now);
        let previous = writing.clone().filter(|writing| !writers.contains(writing));
        let due = writers.into_iter().chain(previous).map(|writer| {
            let proven = self.evidence.is_proven(writer.version);
            (writer, proven)
        });
        due.filter(|(writer, proven)| {
            let is_old = |at: Monotonic| now.since(at) >= max_age;
            let aged = self.evidence.proven_at(writer.version).is_none_or(is_old);
            !proven || (aged && writing.as_ref() == Some(writer))
        })
        .collect()
    }

    /// Returns whether anything fails, or a version waits for its first proof.
    pub(super) fn is_unsettled(&self, now: Monotonic) -> bool {
        let unproven = |writer: &Writer| self.evidence.awaits_proof(writer.version);
        self.evidence.is_failing()
            || self.ring.incident().is_some()
            || self.ring.current_and_future_writers(now).iter().any(unproven)
    }

    /// Returns the next version that will write, and the time until then.
    pub(super) fn takeover(&self, now: Monotonic) -> Option<(KekVersion, Duration)> {
        self.ring.next_takeover(self.writer(now).ok()?.version, now)
    }

    fn outage_after_proof(&self, writer: &Writer, error: &KmsError) -> bool {
        error.code().is_outage() && self.evidence.proven_at(writer.version).is_some()
    }
}

/// Returns whether `error` is about the key or the version, and not about missing information.
const fn is_conclusive(error: &KmsError) -> bool {
    !error.code().is_outage() && !matches!(error.code(), Code::ProofPending | Code::Starting)
}

#[cfg(test)]
#[path = "knowledge_tests.rs"]
mod tests;
