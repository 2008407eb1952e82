//! The methods of the port as values, so that a rule can call each of them in the same way.

use std::{fmt, sync::Arc, time::Duration};

use super::{Subject, deadline};
use crate::{
    domain::{
        envelope::{Annotations, AssociatedData, Ciphertext},
        error::KmsError,
        key::KekVersion,
        secret::Plaintext,
        time::Monotonic,
    },
    ports::kek::{Kek, Unwrap},
};

/// The seed that every sample wraps: 32 bytes, the length of a DEK seed.
const SEED: &[u8; 32] = b"the seed of a sample, 32 bytes..";

/// A method of the port that may wait for the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Describe,
    Wrap,
    Unwrap,
    UnwrapMany,
}

impl Method {
    pub(super) const ALL: [Self; 4] = [Self::Describe, Self::Wrap, Self::Unwrap, Self::UnwrapMany];
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Describe => "describe",
            Self::Wrap => "wrap",
            Self::Unwrap => "unwrap",
            Self::UnwrapMany => "unwrap_many",
        })
    }
}

/// A seed that the keeper has wrapped with its latest version: what every method is called with.
#[derive(Clone)]
pub(super) struct Sample {
    kek: Arc<dyn Kek>,
    pub(super) version: KekVersion,
    pub(super) ciphertext: Ciphertext,
    pub(super) associated_data: AssociatedData,
}

impl Sample {
    /// Has the keeper of `subject` wrap a sample.
    pub(super) async fn of(subject: &dyn Subject) -> Self {
        let kek = subject.kek();
        let associated_data = AssociatedData::binding("sample", &Annotations::ours());
        let version = kek.describe(deadline(subject)).await.unwrap().latest;
        let wrapped = kek.wrap(version, &seed(), &associated_data, deadline(subject)).await;
        Self { kek, version, ciphertext: wrapped.unwrap().ciphertext, associated_data }
    }

    /// Calls `method` once. A success with a wrong plaintext is a panic.
    ///
    /// # Errors
    /// What the method fails with; for `unwrap_many`, what the first item that fails does.
    pub(super) async fn call(&self, method: Method, until: Monotonic) -> Result<(), KmsError> {
        let Self { kek, version, associated_data, .. } = self;
        match method {
            Method::Describe => kek.describe(until).await.map(drop),
            Method::Wrap => kek.wrap(*version, &seed(), associated_data, until).await.map(drop),
            Method::Unwrap => kek.unwrap(self.item(), until).await.map(|opened| is_seed(&opened)),
            Method::UnwrapMany => {
                let results = kek.unwrap_many(&[self.item(), self.item()], until).await;
                assert_eq!(results.len(), 2, "unwrap_many gives a result for each item");
                results.into_iter().try_for_each(|opened| opened.map(|opened| is_seed(&opened)))
            }
        }
    }

    /// Calls `method` with `time` to do it, and gives its outcome. A call that goes on for
    /// [`LATE_MAX`] after its deadline is a panic.
    pub(super) async fn call_within(
        &self,
        subject: &dyn Subject,
        method: Method,
        time: Duration,
    ) -> Result<(), KmsError> {
        let clock = subject.clock();
        tokio::select! {
            biased;
            outcome = self.call(method, clock.now().after(time)) => outcome,
            () = clock.sleep(time.saturating_add(LATE_MAX)) => {
                panic!("{method} went on for {LATE_MAX:?} after its deadline; {END_BY_DEADLINE}")
            }
        }
    }

    /// The sample as an item to unwrap.
    pub(super) const fn item(&self) -> Unwrap<'_> {
        Unwrap { ciphertext: &self.ciphertext, associated_data: &self.associated_data }
    }
}

/// How long after its deadline a call may end.
pub(super) const LATE_MAX: Duration = Duration::from_secs(2);

/// What to do about a call that does not end.
pub(super) const END_BY_DEADLINE: &str =
    "end it at its deadline, for example by `tokio::time::timeout`";

fn seed() -> Plaintext {
    Plaintext::new(SEED.to_vec())
}

fn is_seed(opened: &Plaintext) {
    assert!(opened.expose() == SEED, "an unwrap gave another plaintext than was wrapped");
}
