//! An API server's start: 2,000 seeds to unwrap, serially and 64 at a time, beside a bare client
//! that makes one request each; memory at the peak, and processor time when nothing is asked.
//! `cargo bench --features testkit --bench storm`
#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::restriction,
    clippy::disallowed_methods,
    clippy::future_not_send,
    reason = "a benchmark"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::{Value, json};
use vault_kube_kms::{
    adapters::grpc::{
        client::KmsClient,
        wire::{DecryptRequest, EncryptRequest},
    },
    domain::{
        envelope::{Annotations, AssociatedData},
        key::KekVersion,
        secret::Plaintext,
    },
    ports::kek::Unwrap,
};

#[path = "../tests/support/mod.rs"]
mod support;

use support::{
    admin::{Admin, Provisioned},
    openbao::OpenBao,
    provider::Provider,
    transit::TransitSubject,
};

const BINARY: &str = env!("CARGO_BIN_EXE_vault-kube-kms");
const SEEDS: usize = 2_000;
const WIDTH: usize = 64;
const ROUNDS: usize = 5;
const IDLE: Duration = Duration::from_secs(60);

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let Some(server) = OpenBao::start().await else { return };
        let admin = server.admin.clone();
        admin.mount().await;
        let role = admin.provision("storm").await;
        let args = admin.provider_args(&role, directory.path());
        let provider = Provider::start(BINARY, directory.path(), &args).await;
        let client = provider.healthy_client().await;
        let bare = admin.logged_in(&role).await;
        let ours = Arc::new(seal(&client).await);
        let plain = Arc::new(seal_plainly(&bare).await);
        storm(&provider, &client, &ours, &bare, &plain).await;
        without_batches(&admin, &role).await;
        idle(&provider).await;
    });
}

/// 2,000 objects, as they are stored.
async fn seal(client: &KmsClient) -> Vec<DecryptRequest> {
    let mut sealed = Vec::with_capacity(SEEDS);
    for number in 0..SEEDS {
        let plaintext = seed(number);
        let request = EncryptRequest { plaintext, uid: "bench".into() };
        let answer = client.clone().encrypt(request).await.unwrap().into_inner();
        sealed.push(DecryptRequest {
            ciphertext: answer.ciphertext,
            uid: "bench".into(),
            key_id: answer.key_id,
            annotations: answer.annotations,
        });
    }
    sealed
}

fn seed(number: usize) -> Vec<u8> {
    let mut seed = vec![7; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    seed
}

async fn seal_plainly(bare: &Admin) -> Vec<Value> {
    let aad = STANDARD.encode([9; 80]);
    let mut sealed = Vec::with_capacity(SEEDS);
    for number in 0..SEEDS {
        let plaintext = STANDARD.encode(seed(number));
        let body = json!({"plaintext": plaintext, "key_version": 1, "associated_data": aad});
        let answer = bare.must(Method::POST, "transit/encrypt/storm", body).await;
        let ciphertext = &answer["data"]["ciphertext"];
        sealed.push(json!({"ciphertext": ciphertext, "associated_data": aad}));
    }
    sealed
}

async fn storm(
    provider: &Provider,
    client: &KmsClient,
    ours: &Arc<Vec<DecryptRequest>>,
    bare: &Admin,
    plain: &Arc<Vec<Value>>,
) {
    println!("{:<34}{:>10}{:>10}{:>8}", "2,000 unwraps", "bare /s", "ours /s", "ratio");
    for width in [1, WIDTH] {
        // The rounds alternate, so that a drift of the machine's speed changes both alike.
        let (mut bare_rates, mut our_rates) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let plain = plain.clone();
            let bare = bare.clone();
            bare_rates.push(
                rate(width, move |number| {
                    let (bare, body) = (bare.clone(), plain[number].clone());
                    async move {
                        drop(bare.must(Method::POST, "transit/decrypt/storm", body).await);
                    }
                })
                .await,
            );
            let (client, ours) = (client.clone(), ours.clone());
            our_rates.push(
                rate(width, move |number| {
                    let (mut client, request) = (client.clone(), ours[number].clone());
                    async move {
                        let answer = client.decrypt(request).await.unwrap().into_inner();
                        assert_eq!(answer.plaintext, seed(number), "a wrong plaintext");
                    }
                })
                .await,
            );
        }
        let (bare, ours) = (median(bare_rates), median(our_rates));
        let name = format!("{width} at a time");
        println!("{name:<34}{bare:>10.0}{ours:>10.0}{:>8.2}", ours / bare);
    }
    let (now, peak) = (provider.resident_kib(), provider.peak_kib());
    println!("resident memory {:.1} MiB, {:.1} MiB at the peak", mib(now), mib(peak));
}

/// Measures the same adapter without the layer that batches and without the socket: one request
/// for each unwrap.
async fn without_batches(admin: &Admin, role: &Provisioned) {
    let subject = TransitSubject::new(admin.clone(), role.clone());
    let (kek, clock) = (subject.kek.clone(), subject.clock.clone());
    let bound = AssociatedData::binding("id", &Annotations::ours());
    let deadline = move || clock.now().after(Duration::from_secs(30));
    let mut sealed = Vec::with_capacity(SEEDS);
    for number in 0..SEEDS {
        let seed = Plaintext::new(seed(number));
        let wrapped = kek.wrap(KekVersion::FIRST, &seed, &bound, deadline()).await.unwrap();
        sealed.push(wrapped.ciphertext);
    }
    let sealed = Arc::new(sealed);
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let (kek, sealed) = (kek.clone(), sealed.clone());
        let (bound, deadline) = (bound.clone(), deadline.clone());
        rates.push(
            rate(WIDTH, move |number| {
                let (kek, sealed, bound) = (kek.clone(), sealed.clone(), bound.clone());
                let deadline = deadline();
                async move {
                    let (ciphertext, associated_data) = (&sealed[number], &bound);
                    kek.unwrap(Unwrap { ciphertext, associated_data }, deadline).await.unwrap();
                }
            })
            .await,
        );
    }
    let name = format!("{WIDTH} at a time, without batches");
    println!("{name:<34}{:>10}{:>10.0}", "", median(rates));
}

/// Returns the number of seeds that were unwrapped in a second, with this number of calls at a
/// time.
async fn rate<F>(width: usize, unwrap: impl Fn(usize) -> F + Clone + Send + 'static) -> f64
where
    F: Future<Output = ()> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let workers = (0..width).map(|_| {
        let (next, unwrap) = (next.clone(), unwrap.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= SEEDS {
                    return;
                }
                unwrap(number).await;
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    SEEDS as f64 / started.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

async fn idle(provider: &Provider) {
    let before = provider.processor_time();
    tokio::time::sleep(IDLE).await;
    let used = provider.processor_time() - before;
    println!(
        "idle for {} s: {:.0} ms of processor time, {:.3} %",
        IDLE.as_secs(),
        used.as_secs_f64() * 1e3,
        used.as_secs_f64() / IDLE.as_secs_f64() * 100.0
    );
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
