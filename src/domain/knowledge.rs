//! What is known of the key: its ring, the evidence about its keeper, and what follows from both.
//! Plain values; [`super::watch::KeyWatch`] feeds it.

use std::time::Duration;

use super::{
    error::{Code, KmsError},
    health::{Evidence, OutagePolicy, Standing},
    key::{KekSnapshot, KekVersion, KeyWarning},
    rotation::{KeyRing, Resolution, RingChange, Writer},
    time::{Monotonic, UnixTime},
};

/// How long the version before writes on while the one whose time has come waits for its first
/// proof, counted from when that was first noticed here. Long enough for some twenty tries; short
/// enough that all nodes write with the same version soon.
const PROOF_AWAITED: Duration = Duration::from_mins(1);

/// What an answer of the keeper changed.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) changes: Vec<RingChange>,
    /// The key's warnings, where they are others than before.
    pub(super) warnings: Option<Vec<KeyWarning>>,
}

/// All that is known of one key.
#[derive(Debug)]
pub(super) struct Knowledge {
    pub(super) ring: KeyRing,
    pub(super) evidence: Evidence,
    warned: Vec<KeyWarning>,
    /// When the newest answer was asked for: metadata or a refusal, not an outage.
    answered: Option<Monotonic>,
    /// When the newest metadata was asked for.
    read: Option<Monotonic>,
    /// The version whose time has come, and since when that is so.
    due: Option<(KekVersion, Monotonic)>,
    /// The version that wrote when that was last noted.
    wrote: Option<Writer>,
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
            wrote: None,
        }
    }

    /// Takes in what came of reading the key's metadata, asked for at `asked` and received at `now`
    /// when the local clock read `wall`.
    ///
    /// Reads run side by side. What was asked for before the newest answer was says nothing more,
    /// and is left out. An outage is no answer, so what was asked for before it still counts.
    pub(super) fn take_in(
        &mut self,
        outcome: Result<KekSnapshot, KmsError>,
        asked: Monotonic,
        now: Monotonic,
        wall: UnixTime,
    ) -> News {
        if self.answered.is_some_and(|newest| asked < newest) {
            return News::default();
        }
        if !outcome.as_ref().is_err_and(|error| error.code().is_outage()) {
            self.answered = Some(asked);
        }
        let snapshot = match outcome {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.evidence.metadata_read(Err(error), now);
                return News::default();
            }
        };
        self.read = Some(asked);
        self.evidence.metadata_read(Ok(()), now);
        let warnings = (self.warned != snapshot.warnings).then(|| snapshot.warnings.clone());
        self.warned.clone_from(&snapshot.warnings);
        let changes = self.ring.observe(snapshot, now, wall);
        self.note_due(now);
        News { changes, warnings }
    }

    /// Notes which version writes at `now`, and tells it where it is another one than before.
    pub(super) fn note_writer(&mut self, now: Monotonic) -> Option<Writer> {
        self.note_due(now);
        let writer = self.writer(now).ok()?;
        // Until this one is proven, a lower one may have to write again.
        if self.evidence.is_proven(writer.version) {
            self.evidence.forget_below(writer.version);
        }
        let is_news = self.wrote.as_ref() != Some(&writer);
        is_news.then(|| self.wrote.insert(writer).clone())
    }

    fn note_due(&mut self, now: Monotonic) {
        if let Ok(Writer { version, .. }) = self.ring.writer(now)
            && self.due.is_none_or(|(due, _)| due != version)
        {
            self.due = Some((version, now));
        }
    }

    /// The version that writes at `now`: the one whose time has come ([`KeyRing::writer`]). While
    /// its first proof is still to come, the version that wrote before goes on if the keeper lets
    /// it, or else the newest proven one below; for [`PROOF_AWAITED`] at most.
    ///
    /// # Errors
    /// Those of [`KeyRing::writer`].
    pub(super) fn writer(&self, now: Monotonic) -> Result<Writer, KmsError> {
        let due = self.ring.writer(now)?;
        if !self.evidence.awaits_proof(due.version) || self.awaited(&due, now) >= PROOF_AWAITED {
            return Ok(due);
        }
        let wrote = self.wrote.iter().filter(|wrote| self.ring.may_wrap(wrote)).cloned();
        let mut before = wrote.chain(self.ring.writers_before(due.version));
        let proven = before.find(|writer| self.evidence.proven_at(writer.version).is_some());
        Ok(proven.unwrap_or(due))
    }

    /// For how long the time of `due` had come when the keeper last told of its key. This stands
    /// still while the keeper does not answer.
    fn awaited(&self, due: &Writer, now: Monotonic) -> Duration {
        match (self.due, self.evidence.metadata_age(now)) {
            (Some((version, since)), Some(age)) if version == due.version => {
                now.before(age).since(since)
            }
            _ => Duration::ZERO,
        }
    }

    /// How `Status` stands at `now`, and the version that writes where one is known.
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
    ///
    /// # Errors
    /// What speaks against it.
    pub(super) fn may_write(&self, now: Monotonic) -> Result<Writer, KmsError> {
        match self.standing(now, OutagePolicy::KeepWriting) {
            (Standing::Failing(error), _) => Err(error),
            (Standing::Healthy | Standing::Ailing(_), _) => self.writer(now),
        }
    }

    /// Whether metadata has come that was asked for at `since` or later.
    pub(super) fn is_read_since(&self, since: Monotonic) -> bool {
        self.read.is_some_and(|asked| asked >= since)
    }

    /// Whether `writer` still is what its id says.
    ///
    /// # Errors
    /// The incident if there is one; [`Code::VersionRetired`] or [`Code::KeyReplaced`] when the id
    /// does not name its version any more.
    pub(super) fn vouch_for(&self, writer: &Writer) -> Result<(), KmsError> {
        if let Some(incident) = self.ring.incident() {
            return Err(incident.clone());
        }
        let code = match self.ring.resolve(writer.key_id.as_str()) {
            Resolution::Known(version) if version == writer.version => return Ok(()),
            Resolution::Archived(_) => Code::VersionRetired,
            _ => Code::KeyReplaced,
        };
        let cause = format!("key version {} changed while it wrapped", writer.version);
        Err(KmsError::new(code, cause, "nothing: the API server asks again"))
    }

    /// The versions to prove at `now`, the most urgent first, each with whether its last proof
    /// worked: all that write or will write and are not proven, and the writing one if its proof is
    /// older than `max_age`.
    pub(super) fn due_proofs(&self, max_age: Duration, now: Monotonic) -> Vec<(Writer, bool)> {
        let writing = self.writer(now).ok();
        let to_be = self.ring.writers_to_be(now);
        let before = writing.clone().filter(|writing| !to_be.contains(writing));
        let due = to_be.into_iter().chain(before).map(|writer| {
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

    /// Whether anything fails, or waits for its first proof.
    pub(super) fn is_unsettled(&self, now: Monotonic) -> bool {
        let unproven = |writer: &Writer| self.evidence.awaits_proof(writer.version);
        self.evidence.is_failing()
            || self.ring.incident().is_some()
            || self.ring.writers_to_be(now).iter().any(unproven)
    }

    /// The next version that will write, and how long until then.
    pub(super) fn takeover(&self, now: Monotonic) -> Option<(KekVersion, Duration)> {
        self.ring.next_takeover(self.writer(now).ok()?.version, now)
    }

    fn outage_after_proof(&self, writer: &Writer, error: &KmsError) -> bool {
        error.code().is_outage() && self.evidence.proven_at(writer.version).is_some()
    }
}

/// Whether `error` says something about the key or the version, and not that nothing is known.
const fn is_conclusive(error: &KmsError) -> bool {
    !error.code().is_outage() && !matches!(error.code(), Code::ProofPending | Code::Starting)
}

#[cfg(test)]
#[path = "knowledge_tests.rs"]
mod tests;
