//! `dev`: runs the provider with a new key in a temporary directory, and shows a round trip through
//! its socket.

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
    command::Identity,
    provider::Provider,
    runtime::{hangups, runtime, signals},
    terminal::{announce, complain},
};
use crate::{
    adapters::{
        grpc::{
            address::SocketAddress,
            client::{self, KmsClient},
            incoming::PeerPolicy,
            wire::{DecryptRequest, EncryptRequest, StatusRequest},
        },
        system::clock::SystemClock,
        telemetry::logging::{self, Form, Level},
    },
    config::{
        keepers::{Dev, KeeperSettings},
        settings::{IdentitySettings, Settings},
    },
    domain::health::OutagePolicy,
    ports::clock::Clock,
};

/// How often Status is called until it is ok, and the wait between two calls.
const STATUS_TRIES: u32 = 250;
const STATUS_WAIT: Duration = Duration::from_millis(20);

type Failure = Box<dyn Error + Send + Sync>;

/// Serves the key that `dev` makes, until a stop.
pub(super) fn run(program: Identity, dev: Dev) -> ExitCode {
    match run_in_new_directory(program, dev) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run_in_new_directory(program: Identity, dev: Dev) -> Result<(), Failure> {
    logging::init(Level::Warn, Form::Text, None)?;
    run_in(&Directory::create(program.name)?, program, dev)
}

/// A private directory that is removed when the value is dropped.
struct Directory(PathBuf);

impl Directory {
    fn create(program: &str) -> Result<Self, Failure> {
        let name = format!("{program}-dev.{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            format!(
                "cannot create the directory {}: {error}; set TMPDIR to a directory that exists \
                 and that you may write to",
                path.display()
            )
        })?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn run_in(directory: &Directory, program: Identity, dev: Dev) -> Result<(), Failure> {
    let clock = SystemClock::new();
    let keeper = dev(&directory.0)?;
    let listen = SocketAddress::parse(&directory.0.join("kms.sock").display().to_string())?;
    let runtime = runtime()?;
    let signals = signals(&runtime, hangups(&runtime)?)?;
    let (stop, mut hangup) = (signals.stop.clone(), signals.hangup.clone());
    let provider = Provider::bind(settings(listen.clone(), keeper), program.version, signals)?;
    let (health, metrics) = provider.ports();
    runtime.block_on(async {
        let serving = tokio::spawn(provider.run());
        // The terminal was closed, so the provider is no longer needed.
        let ended = stop.clone();
        drop(tokio::spawn(async move {
            if hangup.changed().await.is_ok() {
                ended.cancel();
            }
        }));
        announce(&format!("socket    {listen}"))?;
        announce(&format!("key       in {}", directory.0.display()))?;
        if let (Some(health), Some(metrics)) = (health, metrics) {
            announce(&format!("probes    http://{health}/healthz http://{health}/readyz"))?;
            announce(&format!("metrics   http://{metrics}/metrics"))?;
        }
        // A stop also ends the round trip. Otherwise its calls would fail, and `dev` would report
        // that as an error.
        if let Some(tried) = stop.run_until_cancelled(round_trip(&clock, &listen)).await {
            tried?;
            announce(&encryption_configuration(program.name, &listen))?;
            announce("Serving until stopped (Ctrl-C). The key and the socket are then removed.")?;
        }
        serving.await?
    })
}

fn settings(listen: SocketAddress, keeper: Arc<dyn KeeperSettings>) -> Settings {
    let free_port = Some((Ipv4Addr::LOCALHOST, 0).into());
    Settings {
        listen,
        peers: PeerPolicy::FileMode,
        keeper,
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
        log_form: Form::Text,
        traces: None,
        // `dev` removes its directory at the end. The sandbox would refuse that.
        sandbox: false,
        warnings: Vec::new(),
    }
}

/// Makes the calls that kube-apiserver makes at its start: Status until it is ok, Encrypt, Decrypt.
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
        return Err(
            "the round trip returned other bytes or another key id; report this as a defect".into(),
        );
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
    Err(format!("Status is not ok after {STATUS_TRIES} tries: {last}").into())
}

fn encryption_configuration(program: &str, listen: &SocketAddress) -> String {
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
          name: {program}
          endpoint: {listen}
          timeout: 3s
      - identity: {{}}
"
    )
}
