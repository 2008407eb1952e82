//! The rules about time: deadlines, blocking, calls that are cancelled, and calls during a rotation.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use super::{
    CALL, Subject,
    calls::{END_BY_DEADLINE, LATE_MAX, Method, Sample},
    one_thread::OneThread,
};
use crate::{
    domain::{
        envelope::{Annotations, AssociatedData},
        secret::Plaintext,
        time::Monotonic,
    },
    ports::kek::{Kek, Unwrap},
};

/// How long a call may take whose deadline has passed, in the fastest of [`TRIES`].
const PROMPT: Duration = Duration::from_millis(250);

/// How often a slow call is made: the machine may be busy.
const TRIES: u32 = 5;

/// Every method ends soon when its deadline has passed, in whatever way.
pub async fn a_passed_deadline_ends_the_call(subject: &dyn Subject) {
    let (sample, clock) = (Sample::of(subject).await, subject.clock());
    for method in Method::ALL {
        let mut fastest = Duration::MAX;
        for _ in 0..TRIES {
            let called = clock.now();
            let _ended = sample.call_within(subject, method, Duration::ZERO).await;
            fastest = fastest.min(clock.now().since(called));
            if fastest <= PROMPT {
                break;
            }
        }
        assert!(
            fastest <= PROMPT,
            "{method} takes {fastest:?} when its deadline has passed; {END_BY_DEADLINE}"
        );
    }
}

/// No method blocks the thread that it is called on.
pub async fn no_call_blocks_the_thread(subject: &dyn Subject) {
    let sample = Sample::of(subject).await;
    let thread = OneThread::start(subject, &sample);
    for method in Method::ALL {
        thread.call(method, CALL).await.unwrap();
    }
}

/// Calls may be dropped at any point, and those that follow work.
pub async fn a_cancelled_call_harms_no_other(subject: &dyn Subject) {
    let (sample, clock) = (Sample::of(subject).await, subject.clock());
    for method in Method::ALL {
        for _ in 0..64 {
            poll_once(sample.call(method, clock.now().after(CALL))).await;
        }
        for millis in 0..8 {
            tokio::select! {
                _ended = sample.call(method, clock.now().after(CALL)) => (),
                () = clock.sleep(Duration::from_millis(millis)) => (),
            }
        }
    }
    for method in Method::ALL {
        let outcome = sample.call_within(subject, method, CALL).await;
        outcome.unwrap_or_else(|error| panic!("{method} after cancelled calls: {error}"));
    }
}

async fn poll_once(call: impl Future) {
    let mut call = pin!(call);
    poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_ready())).await;
}

/// How many tasks call the keeper, how often the key rotates meanwhile, and how many rounds of the
/// tasks are awaited before each rotation and after the last.
const CALLERS: u8 = 8;
const ROTATIONS: u32 = 3;
const ROUNDS: u32 = 16;

/// Eight callers at once describe, wrap and unwrap while the key rotates three times, and none of
/// their calls fails.
pub async fn calls_go_on_while_the_key_rotates(subject: &dyn Subject) {
    let (over, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(Semaphore::new(0)));
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let (kek, clock) = (subject.kek(), subject.clock());
        let (over, rounds) = (Arc::clone(&over), Arc::clone(&rounds));
        callers.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let round = round(&*kek, number, clock.now().after(CALL));
                let ended = timeout(CALL + LATE_MAX, round).await;
                assert!(ended.is_ok(), "calls during rotations hang; {END_BY_DEADLINE}");
                rounds.add_permits(1);
            }
        });
    }
    for rotation in 0..=ROTATIONS {
        tokio::select! {
            enough = rounds.acquire_many(ROUNDS) => enough.unwrap().forget(),
            Some(failed) = callers.join_next() => failed.unwrap(),
        }
        if rotation < ROTATIONS {
            subject.rotate().await;
        }
    }
    over.store(true, Ordering::SeqCst);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}

/// Describes the key, and wraps and unwraps with its latest version.
async fn round(kek: &dyn Kek, caller: u8, until: Monotonic) {
    let version = kek.describe(until).await.expect("describe during rotations").latest;
    let (seed, associated_data) =
        (Plaintext::new(vec![caller; 32]), AssociatedData::binding("a", &Annotations::ours()));
    let wrapped = kek.wrap(version, &seed, &associated_data, until).await;
    let ciphertext = wrapped.expect("wrap during rotations").ciphertext;
    let item = Unwrap { ciphertext: &ciphertext, associated_data: &associated_data };
    assert!(kek.unwrap(item, until).await.expect("unwrap during rotations") == seed);
}
