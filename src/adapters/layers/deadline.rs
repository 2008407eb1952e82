//! The deadline, held for keepers that might not hold it themselves.

use std::{future::Future, sync::Arc};

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
        clock::Clock,
        kek::{Kek, Unwrap, Wrapped},
    },
};

/// Ends each call of the keeper inside at its deadline.
#[derive(Debug)]
pub struct Deadline<K> {
    inner: K,
    clock: Arc<dyn Clock>,
}

impl<K: Kek> Deadline<K> {
    /// `inner`, held to its deadlines by `clock`.
    #[must_use]
    pub fn new(inner: K, clock: Arc<dyn Clock>) -> Self {
        Self { inner, clock }
    }

    async fn hold<T: Send>(
        &self,
        deadline: Monotonic,
        call: impl Future<Output = Result<T, KmsError>> + Send,
    ) -> Result<T, KmsError> {
        let left = deadline.since(self.clock.now());
        tokio::select! {
            biased;
            result = call => result,
            () = self.clock.sleep(left) => Err(expired()),
        }
    }
}

fn expired() -> KmsError {
    KmsError::new(
        Code::DeadlineExceeded,
        "the keeper did not answer before the caller's deadline",
        "check the keeper's load and the network to it",
    )
}

#[async_trait]
impl<K: Kek> Kek for Deadline<K> {
    async fn describe(&self, deadline: Monotonic) -> Result<KekSnapshot, KmsError> {
        self.hold(deadline, self.inner.describe(deadline)).await
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        deadline: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        let call = self.inner.wrap(version, plaintext, associated_data, deadline);
        self.hold(deadline, call).await
    }

    async fn unwrap<'a>(
        &self,
        sealed: Unwrap<'a>,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        self.hold(deadline, self.inner.unwrap(sealed, deadline)).await
    }

    async fn unwrap_many<'a>(
        &self,
        sealed: &[Unwrap<'a>],
        deadline: Monotonic,
    ) -> Vec<Result<Plaintext, KmsError>> {
        let call = async { Ok(self.inner.unwrap_many(sealed, deadline).await) };
        match self.hold(deadline, call).await {
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
    use std::time::Duration;

    use super::*;
    use crate::ports::{clock::MockClock, kek::MockKek};

    #[tokio::test]
    async fn a_keeper_that_hangs_is_given_up() {
        let mut clock = MockClock::new();
        clock.expect_now().return_const(Monotonic::default());
        clock.expect_sleep().withf(|wait| *wait == Duration::from_secs(2)).returning(|_| ());
        let hanging = Hanging(MockKek::new());
        let layer = Deadline::new(hanging, Arc::new(clock));
        let error = layer.describe(Monotonic::at(Duration::from_secs(2))).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
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
