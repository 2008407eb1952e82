//! Records the keeper metrics, for keepers that do not count their requests themselves.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    domain::{
        envelope::{AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::{KekSnapshot, KekVersion},
        secret::Plaintext,
        time::Monotonic,
    },
    ports::{
        abilities::Abilities,
        clock::Clock,
        kek::{Kek, Unwrap, Wrapped},
        telemetry::{Event, KeeperOperation, Telemetry},
    },
};

/// Records each call of the keeper inside.
#[derive(Debug)]
pub struct Metered<K: ?Sized> {
    inner: Arc<K>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<dyn Telemetry>,
}

impl<K: Kek + ?Sized> Metered<K> {
    /// Returns the layer around `inner`. `clock` measures and `telemetry` records.
    #[must_use]
    pub fn new(inner: Arc<K>, clock: Arc<dyn Clock>, telemetry: Arc<dyn Telemetry>) -> Self {
        Self { inner, clock, telemetry }
    }

    /// Records a call that began at `started` and has ended with `error`, if any.
    fn record(&self, operation: KeeperOperation, started: Monotonic, error: Option<&KmsError>) {
        let elapsed = self.clock.now().since(started);
        let error = error.filter(|error| is_of_the_keeper(error.code()));
        self.telemetry.record(Event::KeeperCalled { operation, elapsed, error });
    }
}

/// Returns whether `code` is a failure of the keeper. A working keeper also refuses ciphertexts, as
/// in each proof of binding; such a refusal is not a failure.
const fn is_of_the_keeper(code: Code) -> bool {
    !matches!(code, Code::CiphertextRejected | Code::VersionNotYet | Code::VersionRetired)
}

#[async_trait]
impl<K: Kek + ?Sized> Kek for Metered<K> {
    fn abilities(&self) -> Abilities {
        self.inner.abilities()
    }

    async fn describe(&self, deadline: Monotonic) -> Result<KekSnapshot, KmsError> {
        let started = self.clock.now();
        let outcome = self.inner.describe(deadline).await;
        self.record(KeeperOperation::Read, started, outcome.as_ref().err());
        outcome
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        deadline: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        let started = self.clock.now();
        let outcome = self.inner.wrap(version, plaintext, associated_data, deadline).await;
        self.record(KeeperOperation::Write, started, outcome.as_ref().err());
        outcome
    }

    async fn unwrap<'a>(
        &self,
        sealed: Unwrap<'a>,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        let started = self.clock.now();
        let outcome = self.inner.unwrap(sealed, deadline).await;
        self.record(KeeperOperation::Write, started, outcome.as_ref().err());
        outcome
    }

    async fn unwrap_many<'a>(
        &self,
        sealed: &[Unwrap<'a>],
        deadline: Monotonic,
    ) -> Vec<Result<Plaintext, KmsError>> {
        let started = self.clock.now();
        let outcomes = self.inner.unwrap_many(sealed, deadline).await;
        let error = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
        self.record(KeeperOperation::Write, started, error);
        outcomes
    }

    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
        self.inner.version_of(ciphertext)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{
        adapters::layers::gated::{GatedKek, ciphertext},
        ports::{clock::MockClock, telemetry::MockTelemetry},
    };

    #[tokio::test]
    async fn counts_failures_of_the_keeper_and_no_refused_ciphertext() {
        let kek = GatedKek::new();
        kek.release(3);
        let mut clock = MockClock::new();
        clock.expect_now().return_const(Monotonic::default());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut telemetry = MockTelemetry::new();
        let into = Arc::clone(&seen);
        telemetry.expect_record().returning(move |event| {
            let Event::KeeperCalled { operation, error, .. } = event else { return };
            into.lock().unwrap().push((operation, error.map(KmsError::code)));
        });
        let layer = Metered::new(Arc::new(kek), Arc::new(clock), Arc::new(telemetry));
        let associated_data = AssociatedData::none();
        for text in ["good", "bad", "forbidden"] {
            let ciphertext = ciphertext(text);
            let sealed = Unwrap { ciphertext: &ciphertext, associated_data: &associated_data };
            let _outcome = layer.unwrap(sealed, Monotonic::default()).await;
        }
        let _failed = layer.describe(Monotonic::default()).await;
        let (read, write) = (KeeperOperation::Read, KeeperOperation::Write);
        let denied = Some(Code::PermissionDenied);
        let expected =
            [(write, None), (write, None), (write, denied), (read, Some(Code::Internal))];
        assert_eq!(*seen.lock().unwrap(), expected);
    }
}
