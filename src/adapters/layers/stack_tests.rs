//! Tests all layers together, in virtual time.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::*;
use crate::{
    domain::{
        envelope::{AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::{KekSnapshot, KekVersion},
        secret::Plaintext,
        time::{Monotonic, UnixTime},
    },
    ports::{
        abilities::Abilities,
        kek::{Unwrap, Wrapped},
        telemetry::MockTelemetry,
    },
};

/// A clock that follows the virtual time of the test.
#[derive(Debug)]
struct RuntimeClock(Instant);

#[async_trait]
impl Clock for RuntimeClock {
    fn now(&self) -> Monotonic {
        Monotonic::at(self.0.elapsed())
    }

    fn wall(&self) -> UnixTime {
        UnixTime::default()
    }

    fn jitter(&self) -> f64 {
        0.0
    }

    async fn sleep(&self, wait: Duration) {
        sleep(wait).await;
    }
}

/// Unwraps a ciphertext to itself. The first calls hang, whatever their deadline.
#[derive(Debug)]
struct HangsAtFirst {
    hanging: AtomicUsize,
}

impl HangsAtFirst {
    async fn call(&self) {
        let hangs = |left: usize| left.checked_sub(1);
        if self.hanging.fetch_update(Ordering::SeqCst, Ordering::SeqCst, hangs).is_ok() {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Kek for HangsAtFirst {
    fn abilities(&self) -> Abilities {
        Abilities::default().with_batches(128)
    }

    async fn describe(&self, _: Monotonic) -> Result<KekSnapshot, KmsError> {
        self.call().await;
        unreachable!("nothing is described")
    }

    async fn wrap(
        &self,
        _: KekVersion,
        _: &Plaintext,
        _: &AssociatedData,
        _: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        self.call().await;
        unreachable!("nothing is wrapped")
    }

    async fn unwrap<'a>(&self, sealed: Unwrap<'a>, _: Monotonic) -> Result<Plaintext, KmsError> {
        self.call().await;
        Ok(Plaintext::new(sealed.ciphertext.as_bytes().to_vec()))
    }

    async fn unwrap_many<'a>(
        &self,
        sealed: &[Unwrap<'a>],
        _: Monotonic,
    ) -> Vec<Result<Plaintext, KmsError>> {
        self.call().await;
        sealed.iter().map(|item| Ok(Plaintext::new(item.ciphertext.as_bytes().to_vec()))).collect()
    }

    fn version_of(&self, _: &Ciphertext) -> Result<KekVersion, KmsError> {
        Ok(KekVersion::FIRST)
    }
}

/// Starts one unwrap for each deadline (in seconds from now). Returns how many succeed.
async fn unwrap_all(kek: &Arc<dyn Kek>, clock: &Arc<dyn Clock>, seconds: &[u64]) -> usize {
    let unwrap = |(number, seconds): (u8, &u64)| {
        let (kek, until) = (Arc::clone(kek), clock.now().after(Duration::from_secs(*seconds)));
        tokio::spawn(async move {
            let ciphertext = Ciphertext::new(vec![number]).unwrap();
            let associated_data = AssociatedData::none();
            let sealed = Unwrap { ciphertext: &ciphertext, associated_data: &associated_data };
            kek.unwrap(sealed, until).await.is_ok()
        })
    };
    let calls: Vec<_> = (0..).zip(seconds).map(unwrap).collect();
    let mut succeeded = 0;
    for call in calls {
        succeeded += usize::from(call.await.unwrap());
    }
    succeeded
}

/// Returns a keeper in all layers whose first calls hang, and the clock of its deadlines.
fn layered(hanging: usize) -> (Arc<dyn Kek>, Arc<dyn Clock>) {
    let clock: Arc<dyn Clock> = Arc::new(RuntimeClock(Instant::now()));
    let mut telemetry = MockTelemetry::new();
    telemetry.expect_record().returning(|_| ());
    let telemetry: Arc<dyn Telemetry> = Arc::new(telemetry);
    let kek = HangsAtFirst { hanging: AtomicUsize::new(hanging) };
    (around(Arc::new(kek), &clock, &telemetry), clock)
}

/// A keeper may leave its deadlines to the layers. The contract suite does not test them then.
#[tokio::test(start_paused = true)]
async fn every_method_of_a_keeper_that_hangs_ends_at_its_deadline() {
    let (kek, clock) = layered(usize::MAX);
    let (ciphertext, associated_data) = (Ciphertext::new(vec![1]).unwrap(), AssociatedData::none());
    let item = Unwrap { ciphertext: &ciphertext, associated_data: &associated_data };
    let items = [item, item];
    let (seed, version) = (Plaintext::new(vec![7; 32]), KekVersion::FIRST);
    let until = clock.now().after(Duration::from_secs(2));
    let calls = tokio::join!(
        kek.describe(until),
        kek.wrap(version, &seed, &associated_data, until),
        kek.unwrap(item, until),
        kek.unwrap_many(&items, until),
    );
    let (described, wrapped, unwrapped, several) = calls;
    let mut errors = vec![described.err(), wrapped.err(), unwrapped.err()];
    errors.extend(several.into_iter().map(Result::err));
    let codes: Vec<_> = errors.iter().flatten().map(KmsError::code).collect();
    assert_eq!(codes, [Code::DeadlineExceeded; 5]);
    assert_eq!(clock.now(), until);
}

/// In each round a call hangs until its caller leaves, and then the batch of the waiting calls
/// hangs.
#[tokio::test(start_paused = true)]
async fn calls_that_hang_release_their_slot_at_their_deadline() {
    let (kek, clock) = layered(5);
    for round in [&[2, 2, 4, 4][..], &[2, 4], &[2, 4]] {
        let _hung = unwrap_all(&kek, &clock, round).await;
    }
    assert_eq!(unwrap_all(&kek, &clock, &[2; 20]).await, 20);
}
