//! Ends each call at its deadline, for keepers that may not do it themselves.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

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
    },
};

/// How long the outage of another call explains a call that is ended here.
const OUTAGE_MAX_AGE: Duration = Duration::from_secs(10);

/// The first words of the cause of a call that was ended here.
const EXPIRED: &str = "the keeper did not answer before the caller's deadline";

/// Ends each call of the keeper inside at its deadline.
#[derive(Debug)]
pub struct Deadline<K: ?Sized> {
    inner: Arc<K>,
    clock: Arc<dyn Clock>,
    /// The last outage that a call met, and its time.
    last_outage: Mutex<Option<(Monotonic, KmsError)>>,
}

impl<K: Kek + ?Sized> Deadline<K> {
    /// Returns the layer around `inner`. `clock` measures the deadlines.
    #[must_use]
    pub fn new(inner: Arc<K>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, clock, last_outage: Mutex::default() }
    }

    async fn bound<T: Send>(
        &self,
        deadline: Monotonic,
        call: impl Future<Output = Result<T, KmsError>> + Send,
    ) -> Result<T, KmsError> {
        let left = deadline.since(self.clock.now());
        tokio::select! {
            biased;
            result = call => {
                // Skips calls that had too little time: they explain nothing about other calls.
                if let Err(error) = &result
                    && error.code().is_outage()
                    && error.code() != Code::DeadlineExceeded
                {
                    *self.last_outage() = Some((self.clock.now(), error.clone()));
                }
                result
            },
            () = self.clock.sleep(left) => Err(self.expired()),
        }
    }

    fn last_outage(&self) -> MutexGuard<'_, Option<(Monotonic, KmsError)>> {
        self.last_outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the error of a call that has not ended in time. It contains the outage that another
    /// call met, if one is known.
    fn expired(&self) -> KmsError {
        let now = self.clock.now();
        match &*self.last_outage() {
            Some((when, outage)) if now.since(*when) < OUTAGE_MAX_AGE => KmsError::new(
                Code::DeadlineExceeded,
                format!("{EXPIRED}; last seen: {}: {}", outage.code(), outage.cause()),
                outage.remedy().to_owned(),
            ),
            _ => KmsError::new(
                Code::DeadlineExceeded,
                EXPIRED,
                "check the keeper's load and the network to it",
            ),
        }
    }
}

#[async_trait]
impl<K: Kek + ?Sized> Kek for Deadline<K> {
    fn abilities(&self) -> Abilities {
        self.inner.abilities()
    }

    async fn describe(&self, deadline: Monotonic) -> Result<KekSnapshot, KmsError> {
        self.bound(deadline, self.inner.describe(deadline)).await
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        deadline: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        let call = self.inner.wrap(version, plaintext, associated_data, deadline);
        self.bound(deadline, call).await
    }

    async fn unwrap<'a>(
        &self,
        sealed: Unwrap<'a>,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        self.bound(deadline, self.inner.unwrap(sealed, deadline)).await
    }

    async fn unwrap_many<'a>(
        &self,
        sealed: &[Unwrap<'a>],
        deadline: Monotonic,
    ) -> Vec<Result<Plaintext, KmsError>> {
        let call = async { Ok(self.inner.unwrap_many(sealed, deadline).await) };
        match self.bound(deadline, call).await {
            Ok(results) => results,
            Err(error) => sealed.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
        self.inner.version_of(ciphertext)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{clock::MockClock, kek::MockKek};

    #[tokio::test]
    async fn ends_a_call_to_a_keeper_that_hangs() {
        let mut clock = MockClock::new();
        clock.expect_now().return_const(Monotonic::default());
        clock.expect_sleep().withf(|wait| *wait == Duration::from_secs(2)).returning(|_| ());
        let hanging = Hanging(MockKek::new());
        let layer = Deadline::new(Arc::new(hanging), Arc::new(clock));
        let error = layer.describe(Monotonic::at(Duration::from_secs(2))).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn reports_the_outage_that_another_call_met() {
        let mut clock = MockClock::new();
        clock.expect_now().return_const(Monotonic::default());
        clock.expect_sleep().returning(|_| ());
        let mut keeper = MockKek::new();
        keeper.expect_unwrap().returning(|_, _| {
            Err(KmsError::new(Code::KeeperSealed, "the keeper is sealed", "unseal it"))
        });
        let layer = Deadline::new(Arc::new(Hanging(keeper)), Arc::new(clock));
        let (ciphertext, associated_data) =
            (Ciphertext::new(vec![1]).unwrap(), AssociatedData::none());
        let sealed = Unwrap { ciphertext: &ciphertext, associated_data: &associated_data };
        assert!(layer.unwrap(sealed, Monotonic::default()).await.is_err());
        let error = layer.describe(Monotonic::default()).await.unwrap_err();
        assert!(error.cause().contains("keeper-sealed: the keeper is sealed"), "{error}");
        assert_eq!(error.remedy(), "unseal it");
    }

    /// The stack contains this layer twice.
    #[tokio::test]
    async fn ignores_the_deadline_error_of_the_layer_inside() {
        let mut clock = MockClock::new();
        clock.expect_now().return_const(Monotonic::default());
        clock.expect_sleep().returning(|_| ());
        let mut inner = MockKek::new();
        inner.expect_unwrap().returning(|_, _| {
            Err(KmsError::new(Code::DeadlineExceeded, format!("{EXPIRED}; last seen: x"), "none"))
        });
        let layer = Deadline::new(Arc::new(Hanging(inner)), Arc::new(clock));
        let (ciphertext, associated_data) =
            (Ciphertext::new(vec![1]).unwrap(), AssociatedData::none());
        let sealed = Unwrap { ciphertext: &ciphertext, associated_data: &associated_data };
        assert!(layer.unwrap(sealed, Monotonic::default()).await.is_err());
        let error = layer.describe(Monotonic::default()).await.unwrap_err();
        assert_eq!(error.cause(), EXPIRED);
    }

    #[derive(Debug)]
    struct Hanging(MockKek);

    #[async_trait]
    impl Kek for Hanging {
        async fn describe(&self, _: Monotonic) -> Result<KekSnapshot, KmsError> {
            std::future::pending().await
        }
        async fn wrap(
            &self,
            version: KekVersion,
            plaintext: &Plaintext,
            associated_data: &AssociatedData,
            deadline: Monotonic,
        ) -> Result<Wrapped, KmsError> {
            self.0.wrap(version, plaintext, associated_data, deadline).await
        }
        async fn unwrap<'a>(&self, s: Unwrap<'a>, d: Monotonic) -> Result<Plaintext, KmsError> {
            self.0.unwrap(s, d).await
        }
        fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
            self.0.version_of(ciphertext)
        }
    }
}
