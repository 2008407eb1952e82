//! Health from evidence: the keeper's metadata and our own proofs, never what a request contains.

use std::{collections::BTreeMap, time::Duration};

use super::{
    error::{Code, KmsError},
    key::KekVersion,
    time::Monotonic,
};

/// What `Status` tells while the keeper is out (`--outage-policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutagePolicy {
    /// `Status` fails; kube-apiserver stops writing three minutes later.
    #[default]
    StopWrites,
    /// `Status` answers with a reason instead of `ok`; kube-apiserver goes on writing.
    KeepWriting,
}

/// How `Status` stands at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Wraps work.
    Healthy,
    /// The keeper is out, and the operator chose to keep writing.
    Ailing(KmsError),
    /// Nothing must be written.
    Failing(KmsError),
}

impl Standing {
    /// What is told apart: a cause whose words change stays the same cause.
    #[must_use]
    pub const fn kind(&self) -> (bool, Option<Code>) {
        match self {
            Self::Healthy => (true, None),
            Self::Ailing(error) => (true, Some(error.code())),
            Self::Failing(error) => (false, Some(error.code())),
        }
    }
}

/// A row of equal attempts: when it last worked, and since when and why it does not.
#[derive(Clone, Debug, Default)]
struct Attempts {
    worked_at: Option<Monotonic>,
    /// When the first failure since the last success was, and the latest failure.
    failing: Option<(Monotonic, KmsError)>,
    /// The last failure since the last success that was no outage. An outage after it says
    /// nothing about it, so only a success clears it.
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

    /// The refusal, or the outage once it has lasted for `grace`.
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

/// All evidence about the keeper, and the judgement that follows from it.
#[derive(Clone, Debug)]
pub struct Evidence {
    grace: Duration,
    metadata: Attempts,
    proofs: BTreeMap<KekVersion, Attempts>,
}

impl Evidence {
    /// No evidence yet. An outage shorter than `grace` changes no verdict.
    #[must_use]
    pub const fn new(grace: Duration) -> Self {
        Self {
            grace,
            metadata: Attempts { worked_at: None, failing: None, refused: None },
            proofs: BTreeMap::new(),
        }
    }

    /// The outcome of reading the key's metadata at `now`.
    pub fn metadata_read(&mut self, result: Result<(), KmsError>, now: Monotonic) {
        self.metadata.record(result, now);
    }

    /// The outcome of proving `version` (wrap, unwrap, refuse a foreign binding) at `now`.
    pub fn proof_made(
        &mut self,
        version: KekVersion,
        result: Result<(), KmsError>,
        now: Monotonic,
    ) {
        self.proofs.entry(version).or_default().record(result, now);
    }

    /// Forgets the proofs of versions below `lowest`, which write no more.
    pub fn forget_below(&mut self, lowest: KekVersion) {
        self.proofs = self.proofs.split_off(&lowest);
    }

    /// Why the keeper's metadata cannot be relied on at `now`, if so.
    ///
    /// # Errors
    /// The last refusal since it was read, or the outage that outlasts the grace time;
    /// [`Code::Starting`] before the first attempt ended, and
    /// [`Code::KeeperTimeout`] when no attempt has ended for longer than the grace time. A
    /// snapshot older than that is never relied on.
    pub fn metadata_verdict(&self, now: Monotonic) -> Result<(), KmsError> {
        self.metadata.verdict(now, self.grace)?;
        match self.metadata.worked_at {
            None => Err(KmsError::new(
                Code::Starting,
                "the keeper has not answered since this process started",
                "wait a moment; if this lasts, look for the cause in this process's log",
            )),
            Some(at) if now.since(at) > self.grace.max(STALE_AT_LEAST) => Err(self
                .metadata
                .failing
                .as_ref()
                .map_or_else(|| stale(now.since(at)), |(_, error)| error.clone())),
            Some(_) => Ok(()),
        }
    }

    /// Whether `version` may write at `now`: it was proven, and nothing speaks against it since.
    ///
    /// # Errors
    /// The last refusal since it was proven, or the outage that outlasts the grace time;
    /// [`Code::ProofPending`] when no proof has ended yet.
    pub fn proof_verdict(&self, version: KekVersion, now: Monotonic) -> Result<(), KmsError> {
        match self.proofs.get(&version) {
            Some(attempts) => attempts.verdict(now, self.grace),
            None => Err(KmsError::new(
                Code::ProofPending,
                format!("key version {version} has not been proven against the keeper yet"),
                "wait a moment",
            )),
        }
    }

    /// Why the last attempt to read the metadata failed, if it did.
    #[must_use]
    pub fn metadata_failure(&self) -> Option<&KmsError> {
        self.metadata.failing.as_ref().map(|(_, error)| error)
    }

    /// How long ago the metadata was last read.
    #[must_use]
    pub fn metadata_age(&self, now: Monotonic) -> Option<Duration> {
        self.metadata.worked_at.map(|at| now.since(at))
    }

    /// Whether anything is failing right now, within its grace time or beyond.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.metadata.failing.is_some() || self.proofs.values().any(|p| p.failing.is_some())
    }

    /// Whether `version` has been tried and its last proof worked.
    #[must_use]
    pub fn is_proven(&self, version: KekVersion) -> bool {
        self.proofs.get(&version).is_some_and(|p| p.failing.is_none() && p.worked_at.is_some())
    }

    /// Whether the first proof of `version` is still to come. Failures that say nothing of the
    /// version do not change that: outages, and a node of the keeper that does not know it yet.
    #[must_use]
    pub fn awaits_proof(&self, version: KekVersion) -> bool {
        self.proofs.get(&version).is_none_or(|attempts| {
            let refusal = attempts.refused.as_ref().map(KmsError::code);
            attempts.worked_at.is_none() && refusal.is_none_or(|code| code == Code::VersionNotYet)
        })
    }

    /// When `version` was last proven.
    #[must_use]
    pub fn proven_at(&self, version: KekVersion) -> Option<Monotonic> {
        self.proofs.get(&version).and_then(|attempts| attempts.worked_at)
    }
}

/// A snapshot younger than this is never called stale, however short the grace time: metadata is
/// read every 15 s.
const STALE_AT_LEAST: Duration = Duration::from_secs(20);

fn stale(age: Duration) -> KmsError {
    KmsError::new(
        Code::KeeperTimeout,
        format!("the key was last read {} s ago", age.as_secs()),
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
    fn an_outage_is_told_after_the_grace_time_and_a_refusal_at_once() {
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
    fn at_the_first_start_an_outage_has_no_grace() {
        let mut evidence = evidence();
        assert_eq!(code(evidence.metadata_verdict(at(0))), Some(Code::Starting));
        evidence.metadata_read(failure(Code::KeeperUnreachable), at(1));
        assert_eq!(code(evidence.metadata_verdict(at(1))), Some(Code::KeeperUnreachable));
    }

    #[test]
    fn a_snapshot_nobody_refreshes_is_not_healthy() {
        let mut evidence = evidence();
        evidence.metadata_read(Ok(()), at(0));
        assert_eq!(code(evidence.metadata_verdict(at(30))), None);
        assert_eq!(code(evidence.metadata_verdict(at(31))), Some(Code::KeeperTimeout));
    }

    #[test]
    fn only_a_proven_version_writes() {
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
