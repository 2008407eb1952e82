//! Tests the binary that serves a token, in the sandbox, over its socket.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::token::{Token, decrypt, encrypt};

const SEED: &[u8; 32] = b"0123456789abcdef0123456789ABCDEF";

#[tokio::test(flavor = "multi_thread")]
async fn serves_in_the_sandbox() {
    let Some(token) = Token::make() else { return };
    token.init();
    let served = token.serve(&[]).await;
    served.is_healthy().await;
    let mut client = served.client().await;
    let wrapped = encrypt(&mut client, SEED).await.unwrap();
    assert!(wrapped.key_id.starts_with("v1."), "{}", wrapped.key_id);
    assert_eq!(decrypt(&mut client, &wrapped).await.unwrap(), SEED);
    let mut forged = wrapped.clone();
    let last = forged.ciphertext.len() - 5;
    forged.ciphertext[last] ^= 1;
    let error = decrypt(&mut client, &forged).await.unwrap_err();
    assert!(error.message().starts_with("ciphertext-rejected"), "{error}");
    served.is_healthy().await;
    let log = served.log();
    assert!(log.contains("the sandbox is in force") && !log.contains("incomplete"), "{log}");
    assert_eq!(served.terminate(), Some(0));
}

/// An operator makes the key and three versions while the program runs. Calls go on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn serves_while_the_key_is_rotated() {
    let Some(token) = Token::make() else { return };
    let served = token.serve(&["--rotation-delay=1s"]).await;
    served.says("the key is missing", |text| text.starts_with("key-missing")).await;
    token.init();
    served.is_healthy().await;
    let first = encrypt(&mut served.client().await, SEED).await.unwrap();
    let rotated = Arc::new(AtomicBool::new(false));
    let mut calls = Vec::new();
    for caller in 0..16_u8 {
        let (mut client, rotated) = (served.client().await, Arc::clone(&rotated));
        calls.push(tokio::spawn(async move {
            let mut count = 0;
            while !rotated.load(Ordering::Relaxed) {
                let seed = [caller; 32];
                let wrapped = encrypt(&mut client, &seed).await.unwrap();
                assert_eq!(decrypt(&mut client, &wrapped).await.unwrap(), seed);
                count += 1;
            }
            count
        }));
    }
    for version in 2..=4 {
        token.rotate();
        let writes = format!("v{version}.");
        super::token::until("the new version writes", async || {
            let mut client = served.client().await;
            encrypt(&mut client, SEED).await.unwrap().key_id.starts_with(&writes)
        })
        .await;
    }
    rotated.store(true, Ordering::Relaxed);
    for call in calls {
        assert!(call.await.unwrap() > 0);
    }
    assert_eq!(decrypt(&mut served.client().await, &first).await.unwrap(), SEED);
}

/// The directory of the token is moved away and back.
#[tokio::test(flavor = "multi_thread")]
async fn recovers_when_a_token_comes_back() {
    let Some(token) = Token::make() else { return };
    token.init();
    let served = token.serve(&["--outage-grace=0s"]).await;
    served.is_healthy().await;
    let mut client = served.client().await;
    let wrapped = encrypt(&mut client, SEED).await.unwrap();
    let (files, away) = (token.files(), token.at("away"));
    fs::rename(&files, &away).unwrap();
    served.says("the token is away", |text| text.starts_with("keeper-unreachable")).await;
    fs::rename(&away, &files).unwrap();
    served.is_healthy().await;
    assert_eq!(decrypt(&mut client, &wrapped).await.unwrap(), SEED);
    let again = encrypt(&mut client, SEED).await.unwrap();
    assert_eq!(again.key_id, wrapped.key_id);
    assert_eq!(decrypt(&mut client, &again).await.unwrap(), SEED);
}

/// This happens after a backup was restored beside the key. The provider writes nothing meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn reads_while_two_objects_are_one_version() {
    let Some(token) = Token::make() else { return };
    token.init();
    let served = token.serve(&["--rotation-delay=1s"]).await;
    served.is_healthy().await;
    let mut client = served.client().await;
    let wrapped = encrypt(&mut client, SEED).await.unwrap();
    let key = ["--keygen", "--key-type", "AES:32", "--label", "kube-kms"];
    token.tool_logged_in(&[&key[..], &["--id", &token.last_id()]].concat());
    served.says("the flaw is told", |text| text.starts_with("key-unusable")).await;
    assert!(encrypt(&mut client, SEED).await.is_err());
    for _ in 0..20 {
        assert_eq!(decrypt(&mut client, &wrapped).await.unwrap(), SEED);
    }
}

/// Without the flag, the library cannot read its configuration.
#[tokio::test(flavor = "multi_thread")]
async fn names_the_flag_that_the_sandbox_needs() {
    let Some(token) = Token::make() else { return };
    token.init();
    let served = token.serve_with(&[]).await;
    served.says("the flag is named", |text| text.contains("--pkcs11-needs")).await;
}
