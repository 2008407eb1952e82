//! Derives the health from two kinds of evidence: reads of the key's metadata, and proofs. The
//! content of a request never changes it.

use std::{collections::BTreeMap, time::Duration};

use super::{
    error::{Code, KmsError},
    key::KekVersion,
    time::Monotonic,
};

/// What `Status` answers during an outage of the keeper (`--outage-policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutagePolicy {
    /// `Status` fails; kube-apiserver stops writing three minutes later.
    #[default]
    StopWrites,
    /// `Status` answers with a reason instead of `ok`; kube-apiserver goes on writing.
    KeepWriting,
}

/// The health at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Wraps work.
    Healthy,
    /// The keeper has an outage, and the operator chose to keep writing.
    Ailing(KmsError),
    /// Nothing must be written.
    Failing(KmsError),
}

impl Standing {
    /// Returns whether writes are allowed, and the code of the cause. Two standings with the same
    /// pair are the same, even when the texts of their errors differ.
    #[must_use]
    pub const fn kind(&self) -> (bool, Option<Code>) {
        match self {
            Self::Healthy => (true, None),
            Self::Ailing(error) => (true, Some(error.code())),
            Self::Failing(error) => (false, Some(error.code())),
        }
    }
}

/// The results of repeated attempts at one thing.
#[derive(Clone, Debug, Default)]
struct Attempts {
    /// When the last success was.
    worked_at: Option<Monotonic>,
    /// The time of the first failure since the last success, and the latest failure.
    failing: Option<(Monotonic, KmsError)>,
    /// The latest failure since the last success that is a refusal, not an outage. A later outage
    /// does not show that the refusal has ended, so only a success clears it.
    refused: Option<KmsError>,
}

impl Attempts {
    fn record(&mut self, result: Result<(), KmsError>, now: Monotonic) {
        match result {
            Ok(()) => *self = Self { worked_at: Some(now), ..Self::default() },
            Err(error) => {
                if !error.code().is_outage() {
                    self.refused = Some(error.clone());
                }
                let since = self.failing.take().map_or(now, |(since, _)| since);
                self.failing = Some((since, error));
            }
        }
    }

    /// Fails with the refusal, or with an outage that has lasted for `grace`. An outage before the
    /// first success fails at once.
    fn verdict(&self, now: Monotonic, grace: Duration) -> Result<(), KmsError> {
        if let Some(refusal) = &self.refused {
            return Err(refusal.clone());
        }
        match &self.failing {
            Some((since, outage)) if self.worked_at.is_none() || now.since(*since) >= grace => {
                Err(outage.clone())
            }
            _ => Ok(()),
        }
    }
}

/// All evidence about the keeper.
#[derive(Clone, Debug)]
pub struct Evidence {
    grace: Duration,
    metadata: Attempts,
    proofs: BTreeMap<KekVersion, Attempts>,
}

impl Evidence {
    /// Starts without evidence. After a first success, an outage shorter than `grace` changes no
    /// verdict.
    #[must_use]
    pub const fn new(grace: Duration) -> Self {
        Self {
            grace,
            metadata: Attempts { worked_at: None, failing: None, refused: None },
            proofs: BTreeMap::new(),
        }
    }

    /// Records the result of a read of the key's metadata that ended at `now`.
    pub fn metadata_read(&mut self, result: Result<(), KmsError>, now: Monotonic) {
        self.metadata.record(result, now);
    }

    /// Records the result of a proof of `version` that ended at `now`.
    pub fn proof_made(
        &mut self,
        version: KekVersion,
        result: Result<(), KmsError>,
        now: Monotonic,
    ) {
        self.proofs.entry(version).or_default().record(result, now);
    }

    /// Forgets the proofs of versions below `lowest`. Those versions no longer write.
    pub fn forget_below(&mut self, lowest: KekVersion) {
        self.proofs = self.proofs.split_off(&lowest);
    }

    /// Checks that the known metadata is valid at `now`. Metadata older than the grace time (at
    /// least 20 s) is not valid.
    ///
    /// # Errors
    /// The last refusal since the last read, or an outage that is longer than the grace time;
    /// [`Code::Starting`] before the first attempt has ended; [`Code::KeeperTimeout`] when no
    /// attempt has ended within the grace time.
    pub fn metadata_verdict(&self, now: Monotonic) -> Result<(), KmsError> {
        self.metadata.verdict(now, self.grace)?;
        match self.metadata.worked_at {
            None => Err(KmsError::new(
                Code::Starting,
                "the keeper has not answered since this process started",
                "wait a few seconds; if this lasts, look for the cause in this process's log",
            )),
            Some(at) if now.since(at) > self.grace.max(STALE_AT_LEAST) => Err(self
                .metadata
                .failing
                .as_ref()
                .map_or_else(|| stale(now.since(at)), |(_, error)| error.clone())),
            Some(_) => Ok(()),
        }
    }

    /// Checks that `version` may write at `now`: a proof has succeeded, and no later proof was
    /// refused.
    ///
    /// # Errors
    /// The last refusal since the last successful proof, or an outage that is longer than the grace
    /// time; [`Code::ProofPending`] when no proof has ended yet.
    pub fn proof_verdict(&self, version: KekVersion, now: Monotonic) -> Result<(), KmsError> {
        match self.proofs.get(&version) {
            Some(attempts) => attempts.verdict(now, self.grace),
            None => Err(KmsError::new(
                Code::ProofPending,
                format!(
                    "the keeper has not yet wrapped and unwrapped a probe with key version {version}"
                ),
                "wait a few seconds; if this lasts, look for the cause in this process's log",
            )),
        }
    }

    /// Returns why the last read of the metadata failed, or `None` when it succeeded.
    #[must_use]
    pub fn metadata_failure(&self) -> Option<&KmsError> {
        self.metadata.failing.as_ref().map(|(_, error)| error)
    }

    /// Returns the time since the last successful read of the metadata.
    #[must_use]
    pub fn metadata_age(&self, now: Monotonic) -> Option<Duration> {
        self.metadata.worked_at.map(|at| now.since(at))
    }

    /// Returns whether the last read or the last proof of any version failed, also within the grace
    /// time.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.metadata.failing.is_some() || self.proofs.values().any(|p| p.failing.is_some())
    }

    /// Returns whether the last proof of `version` succeeded.
    #[must_use]
    pub fn is_proven(&self, version: KekVersion) -> bool {
        self.proofs.get(&version).is_some_and(|p| p.failing.is_none() && p.worked_at.is_some())
    }

    /// Returns whether `version` still waits for its first proof. It goes on waiting after an
    /// outage, and after an answer of a keeper's node that does not know the version yet.
    #[must_use]
    pub fn awaits_proof(&self, version: KekVersion) -> bool {
        self.proofs.get(&version).is_none_or(|attempts| {
            let refusal = attempts.refused.as_ref().map(KmsError::code);
            attempts.worked_at.is_none() && refusal.is_none_or(|code| code == Code::VersionNotYet)
        })
    }

    /// Returns when a proof of `version` last succeeded.
    #[must_use]
    pub fn proven_at(&self, version: KekVersion) -> Option<Monotonic> {
        self.proofs.get(&version).and_then(|attempts| attempts.worked_at)
    }
}

/// Metadata younger than this is never stale, even with a shorter grace time. The observer reads
/// metadata every 15 s.
const STALE_AT_LEAST: Duration = Duration::from_secs(20);

fn stale(age: Duration) -> KmsError {
    KmsError::new(
        Code::KeeperTimeout,
        format!("the key's metadata was last read {} s ago", age.as_secs()),
        "check the keeper and the network between it and this node",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::at(Duration::from_secs(seconds))
    }

    fn evidence() -> Evidence {
        Evidence::new(Duration::from_secs(30))
    }

    fn failure(code: Code) -> Result<(), KmsError> {
        Err(KmsError::new(code, "test", "none"))
    }

    fn code(verdict: Result<(), KmsError>) -> Option<Code> {
        verdict.err().map(|error| error.code())
    }

    #[test]
    fn reports_an_outage_after_the_grace_time_and_a_refusal_at_once() {
        let mut outage = evidence();
        outage.metadata_read(Ok(()), at(0));
        outage.metadata_read(failure(Code::KeeperSealed), at(10));
        assert_eq!(code(outage.metadata_verdict(at(29))), None);
        assert_eq!(code(outage.metadata_verdict(at(40))), Some(Code::KeeperSealed));
        let mut refusal = evidence();
        refusal.metadata_read(Ok(()), at(0));
        refusal.metadata_read(failure(Code::PermissionDenied), at(10));
        assert_eq!(code(refusal.metadata_verdict(at(10))), Some(Code::PermissionDenied));
    }

    #[test]
    fn reports_an_outage_at_once_before_the_first_read() {
        let mut evidence = evidence();
        assert_eq!(code(evidence.metadata_verdict(at(0))), Some(Code::Starting));
        evidence.metadata_read(failure(Code::KeeperUnreachable), at(1));
        assert_eq!(code(evidence.metadata_verdict(at(1))), Some(Code::KeeperUnreachable));
    }

    #[test]
    fn rejects_metadata_that_is_older_than_the_grace_time() {
        let mut evidence = evidence();
        evidence.metadata_read(Ok(()), at(0));
        assert_eq!(code(evidence.metadata_verdict(at(30))), None);
        assert_eq!(code(evidence.metadata_verdict(at(31))), Some(Code::KeeperTimeout));
    }

    #[test]
    fn lets_only_a_proven_version_write() {
        let mut evidence = evidence();
        let version = KekVersion::FIRST;
        assert_eq!(code(evidence.proof_verdict(version, at(0))), Some(Code::ProofPending));
        evidence.proof_made(version, failure(Code::AadNotEnforced), at(1));
        assert_eq!(code(evidence.proof_verdict(version, at(1))), Some(Code::AadNotEnforced));
        evidence.proof_made(version, Ok(()), at(2));
        assert_eq!(code(evidence.proof_verdict(version, at(2))), None);
    }

    #[test]
    fn an_outage_does_not_hide_a_failed_proof() {
        for refusal in [Code::AadNotEnforced, Code::KeeperAnswer, Code::PermissionDenied] {
            let (mut evidence, version) = (evidence(), KekVersion::FIRST);
            evidence.proof_made(version, Ok(()), at(0));
            evidence.proof_made(version, failure(refusal), at(50));
            evidence.proof_made(version, failure(Code::KeeperTimeout), at(53));
            assert_eq!(code(evidence.proof_verdict(version, at(53))), Some(refusal));
            evidence.proof_made(version, Ok(()), at(56));
            assert_eq!(code(evidence.proof_verdict(version, at(56))), None);
        }
    }

    #[test]
    fn an_outage_does_not_hide_a_refused_read() {
        let mut evidence = evidence();
        evidence.metadata_read(Ok(()), at(0));
        evidence.metadata_read(failure(Code::PermissionDenied), at(15));
        evidence.metadata_read(failure(Code::KeeperTimeout), at(17));
        assert_eq!(code(evidence.metadata_verdict(at(17))), Some(Code::PermissionDenied));
        assert_eq!(code(evidence.metadata_verdict(at(90))), Some(Code::PermissionDenied));
    }
}
