//! `dev`: the provider with an embedded keeper in a directory of its own, and a round trip
//! through its socket to see.

use std::{
    collections::BTreeMap,
    error::Error,
    fs::{self, DirBuilder},
    net::Ipv4Addr,
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use super::{
    provider::Provider,
    runtime::{runtime, signals},
    terminal::{announce, complain},
    version::VERSION,
};
use crate::{
    adapters::{
        grpc::{
            address::SocketAddress,
            client::{self, KmsClient},
            incoming::PeerPolicy,
            wire::{DecryptRequest, EncryptRequest, StatusRequest},
        },
        local::file::KeyFile,
        system::clock::SystemClock,
        telemetry::logging::{self, Form, Level},
    },
    config::{
        keepers::local::LocalSettings,
        settings::{IdentitySettings, Settings},
    },
    domain::health::OutagePolicy,
    ports::clock::Clock,
};

/// How often, and how far apart, Status is asked until it is ok.
const STATUS_TRIES: u32 = 250;
const STATUS_WAIT: Duration = Duration::from_millis(20);

type Failure = Box<dyn Error + Send + Sync>;

pub(super) fn run() -> ExitCode {
    match live() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn live() -> Result<(), Failure> {
    logging::init(Level::Warn, Form::Text, None)?;
    live_in(&Home::make()?)
}

/// A private directory that goes when the program ends.
struct Home(PathBuf);

impl Home {
    fn make() -> Result<Self, Failure> {
        let name = format!("vault-kube-kms-dev.{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            format!(
                "cannot make the directory {}: {error}; set TMPDIR to a directory that exists and \
                 that you may write to",
                path.display()
            )
        })?;
        Ok(Self(path))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn live_in(home: &Home) -> Result<(), Failure> {
    let clock = SystemClock::new();
    let key_file = home.0.join("key.json");
    KeyFile::create(&key_file, clock.wall())?;
    let listen = SocketAddress::parse(&home.0.join("kms.sock").display().to_string())?;
    let runtime = runtime()?;
    let signals = signals(&runtime)?;
    let (stop, mut hangup) = (signals.stop.clone(), signals.hangup.clone());
    let provider = Provider::bind(settings(listen.clone(), key_file.clone()), VERSION, signals)?;
    let (health, metrics) = provider.ports();
    runtime.block_on(async {
        let serving = tokio::spawn(provider.run());
        // The terminal was closed: nobody uses this provider any more.
        let ended = stop.clone();
        drop(tokio::spawn(async move {
            if hangup.changed().await.is_ok() {
                ended.cancel();
            }
        }));
        announce(&format!("socket    {listen}"))?;
        announce(&format!("key file  {}", key_file.display()))?;
        if let (Some(health), Some(metrics)) = (health, metrics) {
            announce(&format!("probes    http://{health}/healthz http://{health}/readyz"))?;
            announce(&format!("metrics   http://{metrics}/metrics"))?;
        }
        // A stop ends the round trip too: its calls would fail, and that is no error of `dev`.
        if let Some(tried) = stop.run_until_cancelled(round_trip(&clock, &listen)).await {
            tried?;
            announce(&encryption_configuration(&listen))?;
            announce("Serving until stopped (Ctrl-C). Key and socket go with it.")?;
        }
        serving.await?
    })
}

fn settings(listen: SocketAddress, key_file: PathBuf) -> Settings {
    let free_port = Some((Ipv4Addr::LOCALHOST, 0).into());
    Settings {
        listen,
        peers: PeerPolicy::FileMode,
        keeper: Arc::new(LocalSettings(key_file)),
        identity: IdentitySettings {
            lineage: None,
            generation: 0,
            accepted: BTreeMap::new(),
            rotation_delay: Duration::from_mins(1),
        },
        legacy_decrypt: false,
        outage_policy: OutagePolicy::StopWrites,
        outage_grace: Duration::from_secs(30),
        health: free_port,
        metrics: free_port,
        runtime_metrics: true,
        audit: None,
        log_level: Level::Warn,
        traces: None,
        // At its end it removes its directory, which the sandbox would refuse.
        sandbox: false,
        warnings: Vec::new(),
    }
}

/// What kube-apiserver does at its start: Status until it is ok, Encrypt, Decrypt.
async fn round_trip(clock: &SystemClock, listen: &SocketAddress) -> Result<(), Failure> {
    let mut kms = client::connect(listen).await?;
    let key_id = wait_until_ok(clock, &mut kms).await?;
    let seed = *b"a seed of 32 bytes, only for dev";
    let asked = clock.now();
    let request = EncryptRequest { plaintext: seed.to_vec(), uid: "dev-encrypt".into() };
    let sealed = kms.encrypt(request).await?.into_inner();
    let took = clock.now().since(asked);
    announce(&format!(
        "Encrypt   {} bytes -> {} bytes  {took:.1?}",
        seed.len(),
        sealed.ciphertext.len()
    ))?;
    let asked = clock.now();
    let request = DecryptRequest {
        ciphertext: sealed.ciphertext,
        uid: "dev-decrypt".into(),
        key_id: sealed.key_id.clone(),
        annotations: sealed.annotations,
    };
    let opened = kms.decrypt(request).await?.into_inner();
    let took = clock.now().since(asked);
    if *opened.plaintext != seed || sealed.key_id != key_id {
        return Err("the round trip gave something else than was put in; report this".into());
    }
    announce(&format!("Decrypt   the same {} bytes  {took:.1?}", opened.plaintext.len()))?;
    Ok(())
}

async fn wait_until_ok(clock: &SystemClock, kms: &mut KmsClient) -> Result<String, Failure> {
    let mut last = String::new();
    for _ in 0..STATUS_TRIES {
        let asked = clock.now();
        match kms.status(StatusRequest {}).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let took = clock.now().since(asked);
                let (healthz, version) = (&answer.healthz, &answer.version);
                announce(&format!(
                    "Status    {healthz}, {version}, {}  {took:.1?}",
                    answer.key_id
                ))?;
                return Ok(answer.key_id);
            }
            Err(status) => status.message().clone_into(&mut last),
        }
        clock.sleep(STATUS_WAIT).await;
    }
    Err(format!("Status never was ok: {last}").into())
}

fn encryption_configuration(listen: &SocketAddress) -> String {
    format!(
        "
For kube-apiserver --encryption-provider-config:

apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources:
      - secrets
    providers:
      - kms:
          apiVersion: v2
          name: vault-kube-kms
          endpoint: {listen}
          timeout: 3s
      - identity: {{}}
"
    )
}
