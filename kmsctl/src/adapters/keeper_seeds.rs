//! Unwraps seeds by the keeper of the provider's own settings, in this process: the settings, the
//! layers and the rules are those of `vault-kube-kms serve`. Only reads the key and unwraps.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use vault_kube_kms::{
    adapters::system::clock::SystemClock,
    cli::keeper::{self, RunningKeeper},
    config::{settings::Settings, sources::Sources},
    domain::{
        envelope::{Annotations, Ciphertext},
        error::{Code, KmsError},
        secret::Plaintext,
        service::KeyService,
        time::CALL_BUDGET,
        watch::KeyWatch,
    },
    ports::{
        clock::Clock,
        kms::{KeyManagement as _, Sealed},
        telemetry::{Event, Telemetry},
    },
};

use crate::{
    domain::{envelope::Envelope, keeper_facts::KeeperFacts, problem::Problem},
    ports::seeds::Seeds,
};

/// The most time for reading the key, with the login before it.
const READ_TIMEOUT: Duration = Duration::from_secs(8);

/// Discards every event.
#[derive(Debug)]
struct Silent;

impl Telemetry for Silent {
    fn record(&self, _: Event<'_>) {}
}

/// The keeper of the provider's settings.
#[derive(Debug)]
pub struct KeeperSeeds {
    running: RunningKeeper,
    watch: Arc<KeyWatch>,
    service: KeyService,
    clock: Arc<dyn Clock>,
    place: String,
    /// The error of a keeper that does not have the key.
    missing: OnceLock<KmsError>,
    /// Whether objects of other plugins are unwrapped too.
    pub legacy: bool,
}

impl KeeperSeeds {
    /// Opens the keeper that `args` (flags of `vault-kube-kms serve`) and the variables of the
    /// environment describe. Sends no request that waits for an answer.
    ///
    /// # Errors
    /// `settings-invalid` with all errors of the settings, and `keeper-not-opened`.
    pub fn open(args: &[String]) -> Result<Self, Problem> {
        let sources = Sources::collect(args, std::env::vars());
        let settings = match Settings::read(&sources) {
            Ok(settings) if sources.errors.is_empty() => settings,
            read => {
                let errors = sources.errors.iter().chain(read.as_ref().err().into_iter().flatten());
                let errors: Vec<_> = errors.map(ToString::to_string).collect();
                return Err(Problem::new(
                    "settings-invalid",
                    format!("the settings of the keeper are not valid: {}", errors.join("; ")),
                    "give the settings that `vault-kube-kms serve` has, by --config or after --",
                ));
            }
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let telemetry: Arc<dyn Telemetry> = Arc::new(Silent);
        let running =
            RunningKeeper::open(settings.keeper.as_ref(), &clock, &telemetry).map_err(|error| {
                Problem::new(
                    "keeper-not-opened",
                    error,
                    "run `vault-kube-kms check` with the same settings",
                )
            })?;
        let watch = Arc::new(keeper::watch(running.keeper(), &settings, &clock, &telemetry));
        let service = KeyService::new(Arc::clone(&watch), settings.legacy_decrypt);
        Ok(Self {
            running,
            watch,
            service,
            clock,
            place: place(&sources, &settings),
            missing: OnceLock::new(),
            legacy: settings.legacy_decrypt,
        })
    }

    /// Reads the key, and returns what the keeper is. A keeper without the key is an answer.
    ///
    /// # Errors
    /// The error of the keeper.
    pub async fn facts(&self) -> Result<KeeperFacts, KmsError> {
        let kek = Arc::clone(self.running.keeper()).kek();
        let place = self.place.clone();
        match kek.describe(self.clock.now().after(READ_TIMEOUT)).await {
            Ok(described) => {
                self.watch.read_metadata().await;
                let versions = self.watch.view().versions.into_iter();
                let key_ids = versions
                    .filter(|version| version.unwraps)
                    .map(|version| version.key_id.as_str().to_owned())
                    .collect();
                Ok(KeeperFacts {
                    place,
                    latest: Some(described.latest.get()),
                    min_decryption: Some(described.min_decryption.get()),
                    key_ids,
                })
            }
            Err(error) if error.code() == Code::KeyMissing => {
                self.missing.get_or_init(|| error);
                Ok(KeeperFacts { place, ..KeeperFacts::default() })
            }
            Err(error) => Err(error),
        }
    }

    /// Ends the session of the keeper.
    pub async fn close(self) {
        self.running.close().await;
    }
}

/// Returns the server with the place of the key there, as far as the settings name it.
fn place(sources: &Sources, settings: &Settings) -> String {
    let named = |flag| sources.get(flag).and_then(|given| given.values.last());
    let mut place = settings.keeper.connection();
    for (flag, word) in [("vault-namespace", "namespace"), ("vault-key-path", "key")] {
        if let Some(value) = named(flag) {
            place = format!("{place}, {word} {value}");
        }
    }
    place
}

#[async_trait]
impl Seeds for KeeperSeeds {
    async fn unwrap(&self, envelope: &Envelope<'_>) -> Result<Plaintext, KmsError> {
        if let Some(error) = self.missing.get() {
            return Err(error.clone());
        }
        let sealed = Sealed {
            ciphertext: Ciphertext::new(envelope.wrapped_seed.clone())?,
            key_id: envelope.key_id.clone(),
            annotations: Annotations::new(envelope.annotations.clone())?,
        };
        self.service.decrypt(sealed, self.clock.now().after(CALL_BUDGET)).await
    }
}
