//! Tests the use cases with calls that take time: callers that leave, answers in another order than
//! their requests, and a key that changes during a call. Time is virtual and moves only while a
//! test waits.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures_util::future::{join, poll_fn};

use super::*;
use crate::{
    domain::{
        envelope::Ciphertext,
        health::OutagePolicy,
        key::KekSnapshot,
        key_id::{KeyIdentity, Lineage},
        rotation::KeyRing,
        time::UnixTime,
    },
    ports::{
        clock::Clock,
        kek::{Kek, Wrapped},
        telemetry::MockTelemetry,
    },
};

const START: i64 = 1_000_000;
const SEED: [u8; 32] = [7; 32];

/// The time between two polls.
const STEP_MS: u64 = 10;

/// A clock in milliseconds that only the tests move.
#[derive(Debug, Default)]
struct VirtualClock(AtomicU64);

impl VirtualClock {
    fn millis(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn advance(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Monotonic {
        Monotonic::at(Duration::from_millis(self.millis()))
    }

    fn wall(&self) -> UnixTime {
        UnixTime::from_secs(START).after(Duration::from_millis(self.millis()))
    }

    fn jitter(&self) -> f64 {
        0.0
    }

    async fn sleep(&self, wait: Duration) {
        let until = self.now().after(wait);
        let ready =
            |_: &mut Context<'_>| if self.now() >= until { Poll::Ready(()) } else { Poll::Pending };
        poll_fn(ready).await;
    }
}

/// The behaviour of a call to the keeper.
#[derive(Clone, Copy, Debug)]
enum Call {
    /// Answers after this number of milliseconds, with the state at the start of the call.
    Takes(u64),
    Fails(Code),
    Hangs,
}

#[derive(Debug)]
struct Script {
    latest: u32,
    /// The number of the key that has the name. Each key has other creation times.
    key: i64,
    describe: Call,
    wrap: Call,
    unwrap: Call,
    described: usize,
}

/// A keeper that follows its script and counts its open calls.
#[derive(Debug)]
struct ScriptedKek {
    clock: Arc<VirtualClock>,
    script: Mutex<Script>,
    open_calls: AtomicUsize,
}

impl ScriptedKek {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    async fn call<T>(&self, call: Call, answer: T) -> Result<T, KmsError> {
        struct OpenCall<'a>(&'a AtomicUsize);
        impl Drop for OpenCall<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.open_calls.fetch_add(1, Ordering::SeqCst);
        let _open_call = OpenCall(&self.open_calls);
        match call {
            Call::Takes(millis) => {
                self.clock.sleep(Duration::from_millis(millis)).await;
                Ok(answer)
            }
            Call::Fails(code) => Err(KmsError::new(code, "test", "none")),
            Call::Hangs => std::future::pending().await,
        }
    }
}

fn version(number: u32) -> KekVersion {
    KekVersion::new(number).unwrap()
}

fn snapshot(latest: u32, key: i64) -> KekSnapshot {
    let made = |number: u32| {
        UnixTime::from_secs(
            (START - 10_000)
                .saturating_add(key.saturating_mul(100))
                .saturating_add(i64::from(number)),
        )
    };
    KekSnapshot::new((1..=latest).map(|number| (version(number), made(number).into())))
}

#[async_trait]
impl Kek for ScriptedKek {
    async fn describe(&self, _: Monotonic) -> Result<KekSnapshot, KmsError> {
        let (call, answer) = {
            let mut script = self.script();
            script.described = script.described.saturating_add(1);
            (script.describe, snapshot(script.latest, script.key))
        };
        self.call(call, answer).await
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        _: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        let bound = associated_data.as_bytes();
        let mut bytes =
            vec![u8::try_from(version.get()).unwrap(), u8::try_from(bound.len()).unwrap()];
        bytes.extend_from_slice(bound);
        bytes.extend_from_slice(plaintext.expose());
        let wrapped = Wrapped::new(Ciphertext::new(bytes).unwrap(), version);
        let call = self.script().wrap;
        self.call(call, wrapped).await
    }

    async fn unwrap<'a>(&self, sealed: Unwrap<'a>, _: Monotonic) -> Result<Plaintext, KmsError> {
        let call = self.script().unwrap;
        let bytes = sealed.ciphertext.as_bytes();
        let (bound, plaintext) = bytes[2..].split_at(usize::from(bytes[1]));
        let matches = bound == sealed.associated_data.as_bytes();
        self.call(call, Plaintext::new(plaintext.to_vec())).await.and_then(|plaintext| {
            let rejected = || KmsError::new(Code::CiphertextRejected, "test", "none");
            if matches { Ok(plaintext) } else { Err(rejected()) }
        })
    }

    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
        Ok(version(u32::from(ciphertext.as_bytes()[0])))
    }
}

/// The service over a scripted keeper. The key has one version.
struct Bench {
    clock: Arc<VirtualClock>,
    kek: Arc<ScriptedKek>,
    service: KeyService,
}

impl Bench {
    /// Makes the service after the first read and the first proof.
    fn new() -> Self {
        let bench = Self::starting();
        bench.run(bench.observe());
        // The read is then too old to confirm a wrap.
        bench.clock.advance(5_000);
        bench
    }

    /// Makes the service before the first read of the key.
    fn starting() -> Self {
        let clock = Arc::new(VirtualClock::default());
        let script = Script {
            latest: 1,
            key: 0,
            describe: Call::Takes(30),
            wrap: Call::Takes(30),
            unwrap: Call::Takes(30),
            described: 0,
        };
        let (script, open_calls) = (Mutex::new(script), AtomicUsize::new(0));
        let kek = Arc::new(ScriptedKek { clock: Arc::clone(&clock), script, open_calls });
        let mut telemetry = MockTelemetry::new();
        telemetry.expect_record().returning(|_| ());
        let ports = Ports {
            kek: Arc::<ScriptedKek>::clone(&kek),
            clock: Arc::<VirtualClock>::clone(&clock),
            telemetry: Arc::new(telemetry),
        };
        let identity = KeyIdentity::new(Lineage::of_place("test", &["k"]), 0);
        let ring = KeyRing::new(identity, Duration::from_mins(1), BTreeMap::new());
        let grace = Duration::from_secs(30);
        let watch = Arc::new(KeyWatch::new(ports, ring, OutagePolicy::StopWrites, grace));
        Self { clock, kek, service: KeyService::new(watch, true) }
    }

    async fn observe(&self) {
        self.service.watch.read_metadata().await;
        self.service.watch.prove(Duration::ZERO).await;
    }

    fn soon(&self) -> Monotonic {
        self.clock.now().after(Duration::from_millis(2_800))
    }

    async fn encrypt(&self) -> Result<Encrypted, KmsError> {
        self.service.encrypt(Plaintext::new(SEED.to_vec()), self.soon()).await
    }

    /// Decrypts an object that another node wrote with version `number`.
    async fn decrypt(&self, number: u32) -> Result<Plaintext, KmsError> {
        let made = *snapshot(number, self.kek.script().key).versions.get(&version(number)).unwrap();
        let identity = KeyIdentity::new(Lineage::of_place("test", &["k"]), 0);
        let key_id = identity.id_of(version(number), made).as_str().to_owned();
        let annotations = Annotations::ours();
        let bound = AssociatedData::binding(&key_id, &annotations);
        let mut bytes =
            vec![u8::try_from(number).unwrap(), u8::try_from(bound.as_bytes().len()).unwrap()];
        bytes.extend_from_slice(bound.as_bytes());
        bytes.extend_from_slice(&SEED);
        let ciphertext = Ciphertext::new(bytes).unwrap();
        self.service.decrypt(Sealed { ciphertext, key_id, annotations }, self.soon()).await
    }

    /// Polls `future` to its end. Time moves between two polls.
    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        for _ in 0..10_000 {
            if let Poll::Ready(output) =
                future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                return output;
            }
            self.clock.advance(STEP_MS);
        }
        panic!("the future does not end");
    }

    /// Polls `future` up to `polls` times and drops it. Returns whether it ended.
    fn run_and_drop<T>(&self, future: impl Future<Output = T>, polls: usize) -> bool {
        let mut future = pin!(future);
        for _ in 0..polls {
            if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                return true;
            }
            self.clock.advance(STEP_MS);
        }
        false
    }

    fn calls_out(&self) -> usize {
        self.kek.open_calls.load(Ordering::SeqCst)
    }
}

fn code<T>(result: Result<T, KmsError>) -> Option<Code> {
    result.err().map(|error| error.code())
}

/// The API server calls as soon as the socket answers, so a restart must not fail its writes.
#[test]
fn an_encrypt_at_start_waits_for_the_first_proof() {
    let bench = Bench::starting();
    let (sealed, ()) = bench.run(join(bench.encrypt(), bench.observe()));
    assert_eq!(sealed.map(|sealed| sealed.key_id), Ok(bench.service.status().unwrap().key_id));
}

#[test]
fn an_encrypt_at_start_waits_two_seconds_at_most() {
    let bench = Bench::starting();
    assert_eq!(code(bench.run(bench.encrypt())), Some(Code::Starting));
    let waited = bench.clock.millis();
    assert!((2_000..2_100).contains(&waited), "{waited} ms");
}

#[test]
fn a_refresh_without_callers_leaves_no_open_call() {
    let bench = Bench::new();
    bench.kek.script().describe = Call::Hangs;
    let refused = bench.run(bench.decrypt(2));
    assert_eq!(code(refused), Some(Code::KeeperTimeout));
    assert_eq!(bench.calls_out(), 0);
    (bench.kek.script().latest, bench.kek.script().describe) = (2, Call::Takes(30));
    assert!(bench.run(bench.decrypt(2)).is_ok(), "the next caller starts a new refresh");
}

#[test]
fn repeats_a_refresh_that_was_cancelled_within_the_last_second() {
    let bench = Bench::new();
    bench.kek.script().latest = 2;
    assert!(!bench.run_and_drop(bench.decrypt(2), 1));
    assert!(bench.run(bench.decrypt(2)).is_ok());
}

#[test]
fn a_failed_refresh_does_not_reject_the_version() {
    let bench = Bench::new();
    bench.kek.script().describe = Call::Fails(Code::KeeperUnreachable);
    for _ in 0..3 {
        assert_eq!(code(bench.run(bench.decrypt(2))), Some(Code::KeeperUnreachable));
    }
    assert_eq!(bench.kek.script().described, 2, "one refresh a second, and the observer's read");
}

#[test]
fn a_wrap_without_a_confirming_read_fails() {
    for failure in [Code::KeeperFailed, Code::KeeperTimeout, Code::PermissionDenied] {
        let bench = Bench::new();
        bench.kek.script().describe = Call::Fails(failure);
        assert_eq!(code(bench.run(bench.encrypt())), Some(failure));
    }
    let bench = Bench::new();
    bench.kek.script().describe = Call::Hangs;
    assert_eq!(code(bench.run(bench.encrypt())), Some(Code::KeeperTimeout));
    assert_eq!(bench.calls_out(), 0);
}

/// A read that started before the wrap is still running, and answers with the replaced key.
#[test]
fn a_read_that_started_before_the_wrap_does_not_confirm_it() {
    let bench = Bench::new();
    bench.kek.script().describe = Call::Takes(2_000);
    let slow = bench.decrypt(2);
    let replaced = async {
        bench.clock.sleep(Duration::from_millis(100)).await;
        bench.kek.script().key = 1;
        bench.kek.script().describe = Call::Takes(30);
        // The wrap takes longer than a read confirms a wrap.
        bench.kek.script().wrap = Call::Takes(1_500);
        bench.encrypt().await
    };
    let (_, wrapped) = bench.run(join(slow, replaced));
    assert_eq!(code(wrapped), Some(Code::KeyReplaced));
}

#[test]
fn concurrent_encrypts_share_one_refresh() {
    let bench = Bench::new();
    let all = futures_util::future::join_all((0..20).map(|_| bench.encrypt()));
    assert!(bench.run(all).iter().all(Result::is_ok));
    assert_eq!(bench.kek.script().described, 2, "one refresh, and the observer's read");
}

/// Drops a call after each possible number of polls. The keeper must then have no open call, and
/// the next calls must work.
#[test]
fn a_call_dropped_at_any_moment_leaves_no_open_call() {
    for (name, which) in [("encrypt", 0), ("decrypt", 1), ("refresh", 2), ("observe", 3)] {
        let mut polls = 0;
        loop {
            let bench = Bench::new();
            bench.kek.script().latest = 2;
            let ended = match which {
                0 => bench.run_and_drop(bench.encrypt(), polls),
                1 => bench.run_and_drop(bench.decrypt(2), polls),
                2 => bench.run_and_drop(bench.service.refresh(bench.soon()), polls),
                _ => bench.run_and_drop(bench.observe(), polls),
            };
            assert_eq!(bench.calls_out(), 0, "{name} after {polls} polls");
            assert!(bench.run(bench.encrypt()).is_ok(), "{name} after {polls} polls");
            assert!(bench.run(bench.decrypt(2)).is_ok(), "{name} after {polls} polls");
            bench.run(bench.observe());
            assert!(bench.service.status().is_ok(), "{name} after {polls} polls");
            assert_eq!(bench.calls_out(), 0, "{name} after {polls} polls");
            if ended {
                break;
            }
            polls += 1;
        }
        assert!(polls > 3, "{name} never waited");
    }
}

/// Two callers share a refresh. One of them leaves after each possible number of polls; the other
/// still gets its answer.
#[test]
fn a_caller_that_leaves_does_not_end_the_shared_refresh() {
    for polls in 0..8 {
        let bench = Bench::new();
        bench.kek.script().latest = 2;
        let leaving = async {
            let mut call = pin!(bench.decrypt(2));
            for _ in 0..polls {
                let pending =
                    poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_pending()));
                if !pending.await {
                    break;
                }
                bench.clock.sleep(Duration::from_millis(STEP_MS)).await;
            }
        };
        let ((), staying) = bench.run(join(leaving, bench.decrypt(2)));
        assert!(staying.is_ok(), "{polls} polls: {staying:?}");
        assert_eq!((bench.calls_out(), bench.kek.script().described), (0, 2), "{polls} polls");
    }
}

impl Bench {
    /// Decrypts an object of another plugin whose ciphertext names version `number`.
    async fn decrypt_legacy(&self, number: u8) -> Result<Plaintext, KmsError> {
        let ciphertext = Ciphertext::new([&[number, 0][..], &SEED].concat()).unwrap();
        let (key_id, annotations) = ("theirs".to_owned(), Annotations::default());
        self.service.decrypt(Sealed { ciphertext, key_id, annotations }, self.soon()).await
    }
}

#[test]
fn invented_versions_of_legacy_objects_never_reach_the_keeper() {
    let bench = Bench::new();
    bench.kek.script().unwrap = Call::Hangs;
    for number in 2..=200 {
        let refused = bench.run(bench.decrypt_legacy(number));
        assert_eq!(code(refused), Some(Code::KeyIdUnknown), "version {number}");
    }
    assert_eq!(bench.kek.script().described, 2, "one refresh, and the observer's read");
}

#[test]
fn decrypts_a_legacy_object_of_a_newer_version_after_one_refresh() {
    let bench = Bench::new();
    bench.kek.script().latest = 2;
    assert!(bench.run(bench.decrypt_legacy(2)).is_ok());
    assert!(bench.run(bench.decrypt_legacy(1)).is_ok());
    assert_eq!(bench.kek.script().described, 2);
}

/// Before the first description of the key no version can be rejected.
#[test]
fn decrypts_a_legacy_object_before_the_key_was_ever_described() {
    let mut bench = Bench::new();
    let ports = bench.service.watch.ports().clone();
    let identity = KeyIdentity::new(Lineage::of_place("test", &["k"]), 0);
    let ring = KeyRing::new(identity, Duration::from_mins(1), BTreeMap::new());
    let grace = Duration::from_secs(30);
    let watch = Arc::new(KeyWatch::new(ports, ring, OutagePolicy::StopWrites, grace));
    bench.service = KeyService::new(watch, true);
    bench.kek.script().describe = Call::Fails(Code::PermissionDenied);
    assert!(bench.run(bench.decrypt_legacy(1)).is_ok());
}
