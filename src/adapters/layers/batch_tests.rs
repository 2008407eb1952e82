use std::time::Duration;

use tokio::task::{JoinHandle, yield_now};

use super::*;
use crate::adapters::layers::gated::{GatedKek, ciphertext};
use crate::ports::{clock::MockClock, telemetry::MockTelemetry};

/// The abilities of the keeper of these tests.
const CALLS: usize = 8;
const BATCH_MAX: usize = 128;

fn layer(kek: &GatedKek) -> Arc<Batch<GatedKek>> {
    let mut clock = MockClock::new();
    clock.expect_now().return_const(Monotonic::default());
    let mut telemetry = MockTelemetry::new();
    telemetry.expect_record().returning(|_| ());
    Arc::new(Batch::new(kek.clone(), Arc::new(clock), Arc::new(telemetry)))
}

fn ask(layer: &Arc<Batch<GatedKek>>, text: &str) -> JoinHandle<Outcome> {
    ask_until(layer, text, Monotonic::at(Duration::from_secs(1)))
}

fn ask_until(layer: &Arc<Batch<GatedKek>>, text: &str, until: Monotonic) -> JoinHandle<Outcome> {
    let (layer, ciphertext) = (Arc::clone(layer), ciphertext(text));
    tokio::spawn(async move {
        let associated_data = AssociatedData::none();
        let sealed = Unwrap { ciphertext: &ciphertext, associated_data: &associated_data };
        layer.unwrap(sealed, until).await
    })
}

async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

fn load(layer: &Batch<GatedKek>) -> (usize, usize) {
    let state = layer.shared.state();
    (state.active, state.queue.len())
}

#[tokio::test]
async fn sends_a_lone_call_at_once_and_waiting_calls_together() {
    let kek = GatedKek::new();
    let layer = layer(&kek);
    let waiting: Vec<_> = (0..20).map(|n| ask(&layer, &format!("seed {n}"))).collect();
    settle().await;
    assert_eq!(kek.calls(), [1, 1], "the first calls have the slots");
    kek.release(1);
    settle().await;
    assert_eq!(kek.calls(), [1, 1, 18], "all waiting calls go together");
    kek.release(2);
    for (n, waiter) in waiting.into_iter().enumerate() {
        assert_eq!(waiter.await.unwrap().unwrap().expose(), format!("seed {n}").as_bytes());
    }
    settle().await;
    assert_eq!(load(&layer), (0, 0), "every slot is free again");
}

#[tokio::test]
async fn fails_only_the_bad_item() {
    let kek = GatedKek::new();
    let layer = layer(&kek);
    let waiting: Vec<_> = ["a", "b", "c", "bad", "d"].map(|text| ask(&layer, text)).into();
    settle().await;
    kek.release(3);
    for (waiter, text) in waiting.into_iter().zip(["a", "b", "c", "bad", "d"]) {
        match waiter.await.unwrap() {
            Ok(plaintext) => assert_eq!(plaintext.expose(), text.as_bytes()),
            Err(error) => assert_eq!((text, error.code()), ("bad", Code::CiphertextRejected)),
        }
    }
    assert_eq!(kek.calls(), [1, 1, 3]);
}

#[tokio::test]
async fn bounds_a_batch() {
    let kek = GatedKek::new();
    let layer = layer(&kek);
    let waiting: Vec<_> =
        (0..BATCH_CALLS + 8 * BATCH_MAX).map(|n| ask(&layer, &n.to_string())).collect();
    settle().await;
    assert_eq!(load(&layer), (BATCH_CALLS, 8 * BATCH_MAX));
    kek.release(1_000);
    for waiter in waiting {
        waiter.await.unwrap().unwrap();
    }
    assert_eq!(kek.calls()[BATCH_CALLS..], [BATCH_MAX; 8]);
}

#[tokio::test]
async fn skips_abandoned_calls_and_frees_their_slots() {
    let kek = GatedKek::new();
    let layer = layer(&kek);
    let slots: Vec<_> = ["a", "b"].map(|text| ask(&layer, text)).into();
    settle().await;
    let leaving: Vec<_> = (0..10).map(|_| ask(&layer, "leaves")).collect();
    let staying = ask(&layer, "stays");
    settle().await;
    leaving.iter().for_each(JoinHandle::abort);
    // The callers with slots leave too, while their calls are active.
    slots.iter().for_each(JoinHandle::abort);
    settle().await;
    assert_eq!(kek.calls(), [1, 1, 1]);
    kek.release(1);
    assert_eq!(staying.await.unwrap().unwrap().expose(), b"stays");
    settle().await;
    assert_eq!((load(&layer), kek.under_way()), ((0, 0), 0));
}

#[tokio::test]
async fn removes_abandoned_calls_from_the_queue() {
    let kek = GatedKek::new();
    let layer = layer(&kek);
    let _lanes: Vec<_> = ["a", "b"].map(|text| ask(&layer, text)).into();
    settle().await;
    for _ in 0..5 {
        let leaving: Vec<_> = (0..SWEEP_MIN).map(|n| ask(&layer, &n.to_string())).collect();
        settle().await;
        leaving.iter().for_each(JoinHandle::abort);
        settle().await;
    }
    let comes = ask(&layer, "comes");
    settle().await;
    assert!(load(&layer).1 <= SWEEP_MIN + 1, "{:?}", load(&layer));
    kek.release(1_000);
    assert_eq!(comes.await.unwrap().unwrap().expose(), b"comes");
}

/// Sends inconclusive items again alone. No other item waits for that.
#[tokio::test]
async fn an_inconclusive_item_delays_no_other() {
    for open in ["late", "inside"] {
        let kek = GatedKek::new();
        let layer = layer(&kek);
        let slots: Vec<_> = ["a", "b"].map(|text| ask(&layer, text)).into();
        settle().await;
        let waiting = ask(&layer, open);
        let others: Vec<_> = ["c", "d", "bad"].map(|text| ask(&layer, text)).into();
        settle().await;
        kek.release(3);
        for other in slots.into_iter().chain(others) {
            drop(other.await.unwrap());
        }
        settle().await;
        assert_eq!(kek.calls(), [1, 1, 4, 1], "{open} is sent alone");
        assert_eq!(load(&layer), (0, 0), "{open} holds no slot");
        kek.release(1);
        assert_eq!(waiting.await.unwrap().unwrap().expose(), open.as_bytes());
        assert_eq!(kek.under_way(), 0);
    }
}

#[tokio::test]
async fn bounds_single_calls_and_drops_them_with_their_callers() {
    let kek = GatedKek::new();
    let layer = layer(&kek);
    let _lanes: Vec<_> = ["a", "b"].map(|text| ask(&layer, text)).into();
    settle().await;
    let waiting: Vec<_> = (0..CALLS + 5).map(|_| ask(&layer, "late")).collect();
    settle().await;
    kek.release(3);
    settle().await;
    assert_eq!(kek.under_way(), CALLS);
    waiting.iter().for_each(JoinHandle::abort);
    settle().await;
    assert_eq!(kek.under_way(), 0);
}

/// A keeper that fails as a whole is not asked again for each item.
#[tokio::test]
async fn does_not_split_a_batch_that_failed_as_a_whole() {
    let kek = GatedKek::new();
    let layer = layer(&kek);
    let _lanes: Vec<_> = ["a", "b"].map(|text| ask(&layer, text)).into();
    settle().await;
    let waiting: Vec<_> = (0..5).map(|_| ask(&layer, "inside")).collect();
    settle().await;
    kek.release(3);
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap().unwrap_err().code(), Code::KeeperFailed);
    }
    assert_eq!(kek.calls(), [1, 1, 5]);
}

/// A policy may allow single unwraps and forbid batches.
#[tokio::test]
async fn sends_items_of_a_denied_batch_alone_until_one_is_denied() {
    for (text, code, alone) in
        [("no batches", None, 40), ("forbidden", Some(Code::PermissionDenied), 1)]
    {
        let kek = GatedKek::new();
        let layer = layer(&kek);
        let _lanes: Vec<_> = ["a", "b"].map(|text| ask(&layer, text)).into();
        settle().await;
        let waiting: Vec<_> = (0..40).map(|_| ask(&layer, text)).collect();
        settle().await;
        kek.release(3 + alone);
        for waiter in waiting {
            assert_eq!(waiter.await.unwrap().err().map(|error| error.code()), code);
        }
        assert_eq!(kek.calls(), [vec![1, 1, 40], vec![1; alone]].concat());
    }
}

#[tokio::test]
async fn does_not_send_an_expired_call() {
    let kek = GatedKek::new();
    let layer = layer(&kek);
    let slots: Vec<_> = ["a", "b"].map(|text| ask(&layer, text)).into();
    settle().await;
    let late = ask_until(&layer, "late", Monotonic::default());
    settle().await;
    kek.release(2);
    for slot in slots {
        slot.await.unwrap().unwrap();
    }
    assert_eq!(late.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(kek.calls(), [1, 1]);
}

#[tokio::test]
async fn bounds_wraps() {
    let kek = GatedKek::new();
    let layer = layer(&kek);
    let wraps: Vec<_> = (0..CALLS + 5)
        .map(|_| {
            let layer = Arc::clone(&layer);
            tokio::spawn(async move {
                let (seed, bound) = (Plaintext::new(vec![7; 32]), AssociatedData::none());
                let until = Monotonic::at(Duration::from_secs(1));
                layer.wrap(KekVersion::FIRST, &seed, &bound, until).await
            })
        })
        .collect();
    settle().await;
    assert_eq!(kek.under_way(), CALLS);
    kek.release(CALLS + 5);
    for wrap in wraps {
        wrap.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn sends_as_many_calls_as_a_keeper_without_batches_allows() {
    let abilities = Abilities::default().with_calls(16);
    let mut kek = GatedKek::new();
    kek.abilities = abilities;
    let layer = layer(&kek);
    let calls: Vec<_> = (0..40).map(|number| ask(&layer, &format!("{number}"))).collect();
    settle().await;
    assert_eq!(kek.under_way(), 16);
    kek.release(40);
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    assert_eq!(kek.calls(), [1; 40]);
}
