//! Tests a token that hangs, and a token that fails.

use std::time::{Duration, Instant};

use super::token::{Token, decrypt, encrypt};

const SEED: &[u8; 32] = b"0123456789abcdef0123456789ABCDEF";

/// Limits the time of a call without a deadline of its own.
const CALL: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn ends_calls_of_a_module_that_hangs_by_their_deadline() {
    let Some(token) = Token::behind_a_stand_in() else { return };
    token.init();
    let served = token.serve(&["--pkcs11-sessions=3", "--outage-grace=0s"]).await;
    served.is_healthy().await;
    let wrapped = encrypt(&mut served.client().await, SEED).await.unwrap();
    token.switch("hang", true);
    let entered = token.calls("enter");
    let mut calls = Vec::new();
    for caller in 0..40_u8 {
        let mut client = served.client().await;
        calls.push(tokio::spawn(async move {
            let started = Instant::now();
            let error = encrypt(&mut client, &[caller; 32]).await.unwrap_err();
            (error.message().to_owned(), started.elapsed())
        }));
    }
    for call in calls {
        let (message, took) = call.await.unwrap();
        let known = ["keeper-timeout", "deadline-exceeded"];
        assert!(known.iter().any(|code| message.starts_with(code)), "{message}");
        assert!(took < CALL, "{took:?}");
    }
    // Status does not hang.
    served
        .says("the outage is told", |text| text.contains("in time") || text.contains("deadline"))
        .await;
    assert!(token.calls("enter") - entered <= 3, "more threads inside than sessions");
    token.switch("hang", false);
    served.is_healthy().await;
    assert_eq!(decrypt(&mut served.client().await, &wrapped).await.unwrap(), SEED);
}

#[tokio::test(flavor = "multi_thread")]
async fn distinguishes_a_broken_device_from_a_forged_ciphertext() {
    let Some(token) = Token::behind_a_stand_in() else { return };
    token.init();
    let served = token.serve(&["--outage-grace=0s"]).await;
    served.is_healthy().await;
    let mut client = served.client().await;
    let wrapped = encrypt(&mut client, SEED).await.unwrap();
    token.switch("broken", true);
    let error = decrypt(&mut client, &wrapped).await.unwrap_err();
    let told = "keeper-failed: the PKCS#11 module answered CKR_DEVICE_ERROR to C_Decrypt";
    assert!(error.message().starts_with(told), "{error}");
    token.switch("broken", false);
    assert_eq!(decrypt(&mut client, &wrapped).await.unwrap(), SEED);
    served.is_healthy().await;
    let ended = token.calls("finalize");
    assert_eq!(served.terminate(), Some(0));
    assert_eq!(token.calls("finalize"), ended + 1, "the sessions end with the process");
}
