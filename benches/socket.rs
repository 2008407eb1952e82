//! Status, Encrypt and Decrypt over the socket, against the embedded keeper:
//! `cargo bench --bench socket`.
#![allow(
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    clippy::pedantic,
    clippy::restriction,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

use std::{fs, hint::black_box, path::Path, process::Command, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use vault_kube_kms::adapters::grpc::{
    client::KmsClient,
    wire::{DecryptRequest, EncryptRequest, StatusRequest},
};

#[path = "../tests/support/provider.rs"]
mod provider;

use provider::Provider;

const BINARY: &str = env!("CARGO_BIN_EXE_vault-kube-kms");

fn start(runtime: &Runtime, directory: &Path) -> (Provider, KmsClient) {
    let key_file = directory.join("key.json");
    let key_flag = format!("--local-key-file={}", key_file.display());
    let made = Command::new(BINARY).args(["local", "init", &key_flag]).output().unwrap();
    assert!(made.status.success() && fs::exists(key_file).unwrap());
    let args = ["--keeper=local".to_owned(), key_flag];
    runtime.block_on(async {
        let provider = Provider::start(BINARY, directory, &args).await;
        let client = provider.healthy_client().await;
        (provider, client)
    })
}

fn calls(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (_provider, client) = start(&runtime, directory.path());
    let mut group = criterion.benchmark_group("socket");
    group.measurement_time(Duration::from_secs(5));
    group.bench_function("status", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| async { black_box(client.clone().status(StatusRequest {}).await.unwrap()) });
    });
    let encrypt = EncryptRequest { plaintext: vec![7; 32], uid: "bench".into() };
    group.bench_function("encrypt", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| async { black_box(client.clone().encrypt(encrypt.clone()).await.unwrap()) });
    });
    let sealed = runtime.block_on(client.clone().encrypt(encrypt.clone())).unwrap().into_inner();
    let decrypt = DecryptRequest {
        ciphertext: sealed.ciphertext,
        uid: "bench".into(),
        key_id: sealed.key_id,
        annotations: sealed.annotations,
    };
    group.bench_function("decrypt", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| async { black_box(client.clone().decrypt(decrypt.clone()).await.unwrap()) });
    });
    group.finish();
}

criterion_group!(benches, calls);
criterion_main!(benches);
