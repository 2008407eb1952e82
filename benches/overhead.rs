//! Measures the time that the provider adds to the bare Transit call. Each round makes one call
//! of each kind, so that a drift of the machine's speed changes all kinds alike.
//! `cargo bench --features testkit --bench overhead`
#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::restriction,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::json;
use vault_kube_kms::adapters::grpc::{
    client::KmsClient,
    wire::{DecryptRequest, EncryptRequest, StatusRequest},
};

#[path = "../tests/support/mod.rs"]
mod support;

use support::{admin::Admin, openbao::OpenBao, provider::Provider};

const BINARY: &str = env!("CARGO_BIN_EXE_vault-kube-kms");
const ROUNDS: usize = 4_000;
const WARM_UP: usize = 200;
const MEMORY_CALLS: usize = 100_000;

/// The durations of one kind of call.
#[derive(Default)]
struct Timings(Vec<Duration>);

impl Timings {
    async fn time<T>(&mut self, call: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let result = call.await;
        self.0.push(started.elapsed());
        result
    }

    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0[WARM_UP..].to_vec();
        sorted.sort_unstable();
        sorted[(sorted.len() - 1) * percent / 100].as_secs_f64() * 1e6
    }

    fn row(&self, name: &str, bare: Option<&Self>) {
        let (p50, p99) = (self.percentile(50), self.percentile(99));
        let ratio =
            bare.map_or_else(String::new, |bare| format!("{:>7.2}", p50 / bare.percentile(50)));
        println!("{name:<28}{p50:>9.0}{p99:>9.0}{ratio}");
    }
}

fn main() {
    // One thread: the client must not take the server's cores.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let Some(server) = OpenBao::start().await else { return };
        let admin = server.admin.clone();
        admin.mount().await;
        let role = admin.provision("bench").await;
        let args = admin.provider_args(&role, directory.path());
        let provider = Provider::start(BINARY, directory.path(), &args).await;
        let mut client = provider.healthy_client().await;
        compare(&admin.logged_in(&role).await, &mut client).await;
        memory(&provider, &mut client).await;
        println!("accepting {:.1} ms after exec", provider.accepted_after.as_secs_f64() * 1e3);
    });
}

async fn compare(bare: &Admin, client: &mut KmsClient) {
    let plaintext = STANDARD.encode([7; 32]);
    let aad = STANDARD.encode([9; 80]);
    let bare_seal = json!({"plaintext": plaintext, "key_version": 1, "associated_data": aad});
    let sealed = bare.must(Method::POST, "transit/encrypt/bench", bare_seal.clone()).await;
    let bare_open = json!({"ciphertext": sealed["data"]["ciphertext"], "associated_data": aad});
    let encrypt = EncryptRequest { plaintext: vec![7; 32], uid: "bench".into() };
    let sealed = client.encrypt(encrypt.clone()).await.unwrap().into_inner();
    let decrypt = DecryptRequest {
        ciphertext: sealed.ciphertext,
        uid: "bench".into(),
        key_id: sealed.key_id,
        annotations: sealed.annotations,
    };
    let mut timings: [Timings; 5] = Default::default();
    let [status, bare_encrypt, ours_encrypt, bare_decrypt, ours_decrypt] = &mut timings;
    for _ in 0..ROUNDS {
        status.time(client.status(StatusRequest {})).await.unwrap();
        bare_encrypt
            .time(bare.must(Method::POST, "transit/encrypt/bench", bare_seal.clone()))
            .await;
        ours_encrypt.time(client.encrypt(encrypt.clone())).await.unwrap();
        bare_decrypt
            .time(bare.must(Method::POST, "transit/decrypt/bench", bare_open.clone()))
            .await;
        ours_decrypt.time(client.decrypt(decrypt.clone())).await.unwrap();
    }
    println!("{:<28}{:>9}{:>9}{:>7}", "one call at a time", "p50 us", "p99 us", "ratio");
    status.row("Status", None);
    bare_encrypt.row("bare Transit encrypt", None);
    ours_encrypt.row("Encrypt", Some(bare_encrypt));
    bare_decrypt.row("bare Transit decrypt", None);
    ours_decrypt.row("Decrypt", Some(bare_decrypt));
}

async fn memory(provider: &Provider, client: &mut KmsClient) {
    let before = provider.resident_kib();
    let encrypt = EncryptRequest { plaintext: vec![7; 32], uid: "bench".into() };
    let mut left = MEMORY_CALLS;
    while left > 0 {
        let wide = left.min(16);
        let calls = (0..wide).map(|_| {
            let (mut client, encrypt) = (client.clone(), encrypt.clone());
            tokio::spawn(async move { client.encrypt(encrypt).await.map(drop) })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap().unwrap();
        }
        left -= wide;
    }
    let after = provider.resident_kib();
    println!(
        "resident memory {:.1} MiB, after {MEMORY_CALLS} more calls {:.1} MiB",
        before as f64 / 1024.0,
        after as f64 / 1024.0
    );
}
