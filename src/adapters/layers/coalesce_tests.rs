use std::time::Duration;

use tokio::task::yield_now;

use super::*;
use crate::adapters::layers::gated::{GatedKek, ciphertext};
use crate::ports::{clock::MockClock, telemetry::MockTelemetry};

fn layer(kek: &GatedKek) -> Arc<Coalesce<GatedKek>> {
    let mut clock = MockClock::new();
    clock.expect_now().return_const(Monotonic::default());
    let mut telemetry = MockTelemetry::new();
    telemetry.expect_record().returning(|_| ());
    Arc::new(Coalesce::new(kek.clone(), Arc::new(clock), Arc::new(telemetry)))
}

fn soon() -> Monotonic {
    Monotonic::at(Duration::from_secs(1))
}

fn ask(layer: &Arc<Coalesce<GatedKek>>, text: &str) -> tokio::task::JoinHandle<Outcome> {
    let (layer, ciphertext) = (Arc::clone(layer), ciphertext(text));
    tokio::spawn(async move {
        let associated_data = AssociatedData::none();
        let sealed = Unwrap { ciphertext: &ciphertext, associated_data: &associated_data };
        layer.unwrap(sealed, soon()).await
    })
}

async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

#[tokio::test]
async fn equal_unwraps_share_a_call_and_different_ones_do_not() {
    let kek = GatedKek::new();
    let layer = layer(&kek);
    let waiting: Vec<_> = (0..64).map(|n| ask(&layer, ["a", "b"][n % 2])).collect();
    settle().await;
    assert_eq!(kek.calls().len(), 2);
    kek.release(2);
    for (n, waiter) in waiting.into_iter().enumerate() {
        assert_eq!(waiter.await.unwrap().unwrap().expose(), ["a", "b"][n % 2].as_bytes());
    }
    assert!(layer.calls.lock().unwrap().is_empty(), "nothing is kept");
    let again = ask(&layer, "a");
    kek.release(1);
    again.await.unwrap().unwrap();
    assert_eq!(kek.calls().len(), 3, "a later call does not get an earlier answer");
}

#[tokio::test]
async fn shares_a_failure() {
    let kek = GatedKek::new();
    let layer = layer(&kek);
    let waiting: Vec<_> = (0..3).map(|_| ask(&layer, "bad")).collect();
    settle().await;
    kek.release(1);
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap().unwrap_err().code(), Code::CiphertextRejected);
    }
}

#[tokio::test]
async fn the_call_goes_on_when_its_first_caller_leaves() {
    let kek = GatedKek::new();
    let layer = layer(&kek);
    let first = ask(&layer, "a");
    settle().await;
    let second = ask(&layer, "a");
    settle().await;
    first.abort();
    settle().await;
    kek.release(1);
    assert_eq!(second.await.unwrap().unwrap().expose(), b"a");
    assert_eq!(kek.calls().len(), 1);
}

#[tokio::test]
async fn drops_a_call_that_all_callers_have_left() {
    let kek = GatedKek::new();
    let layer = layer(&kek);
    let waiting: Vec<_> = (0..5).map(|_| ask(&layer, "a")).collect();
    settle().await;
    assert_eq!(kek.under_way(), 1);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    settle().await;
    assert_eq!(kek.under_way(), 0);
    assert!(layer.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn does_not_share_between_different_associated_data() {
    let kek = GatedKek::new();
    let layer = layer(&kek);
    let other = {
        let layer = Arc::clone(&layer);
        tokio::spawn(async move {
            let bound =
                AssociatedData::binding("id", &crate::domain::envelope::Annotations::ours());
            let ciphertext = ciphertext("a");
            let sealed = Unwrap { ciphertext: &ciphertext, associated_data: &bound };
            layer.unwrap(sealed, soon()).await
        })
    };
    let plain = ask(&layer, "a");
    settle().await;
    assert_eq!(kek.calls().len(), 2);
    kek.release(2);
    plain.await.unwrap().unwrap();
    other.await.unwrap().unwrap();
}

#[tokio::test]
async fn never_shares_wraps() {
    let kek = GatedKek::new();
    let layer = layer(&kek);
    kek.release(2);
    let (seed, bound) = (Plaintext::new(vec![7; 32]), AssociatedData::none());
    let wrap = || layer.wrap(KekVersion::FIRST, &seed, &bound, soon());
    let (one, two) = tokio::join!(wrap(), wrap());
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(kek.wraps.load(std::sync::atomic::Ordering::SeqCst), 2);
}
