//! The provider put together: adapters chosen by the settings, wired through the ports.

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    adapters::{
        grpc::{
            server::Serving,
            socket::{BoundSocket, SocketFile},
        },
        http::{
            endpoints::{Endpoints, Readiness},
            server::BoundPort,
        },
        layers::deadline::Deadline,
        local::keeper::LocalKek,
        system::clock::SystemClock,
        telemetry::{metrics::Metrics, recorder::Recorder},
        vault::{approle::AppRole, client::VaultClient, session::Session, transit::TransitKek},
    },
    config::settings::{KeeperSettings, Settings, VaultSettings},
    domain::{
        key_id::{KeyIdentity, Lineage},
        observer::Observer,
        rotation::KeyRing,
        service::KeyService,
        watch::KeyWatch,
    },
    ports::{Ports, clock::Clock, kek::Kek, telemetry::Telemetry},
};

/// How long calls in hand may take to end after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(5);

/// How long the token's end is waited for.
const REVOKE: Duration = Duration::from_secs(1);

/// A provider whose socket is bound; [`Provider::run`] serves it.
pub(super) struct Provider {
    settings: Settings,
    socket: BoundSocket,
    stop: CancellationToken,
    clock: Arc<dyn Clock>,
    telemetry: Arc<dyn Telemetry>,
    metrics: Arc<Metrics>,
    keeper: Keeper,
    health: Option<BoundPort>,
    scrapes: Option<BoundPort>,
}

/// A keeper in its layers, and what keeps it going.
struct Keeper {
    kek: Arc<dyn Kek>,
    lineage: Lineage,
    session: Option<Arc<Session>>,
}

impl Provider {
    /// Binds everything that `settings` ask for. Only the socket must succeed: a busy port is a
    /// warning.
    pub(super) fn bind(settings: Settings) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let connection = match &settings.keeper {
            KeeperSettings::Vault(vault) => vault.client.address.to_string(),
            KeeperSettings::Local(_) => "local".to_owned(),
        };
        let metrics = Metrics::new(&connection, settings.runtime_metrics, Arc::clone(&clock))?;
        let metrics = Arc::new(metrics);
        let telemetry: Arc<dyn Telemetry> =
            Arc::new(Recorder::new(Arc::clone(&metrics), Arc::clone(&clock)));
        let keeper = Keeper::new(&settings.keeper, &clock, &telemetry)?;
        let socket = BoundSocket::bind(&settings.listen)?;
        info!(address = %socket.address, "socket bound");
        let health = settings.health.and_then(|address| bind_port("health", address));
        let scrapes = settings.metrics.and_then(|address| bind_port("metrics", address));
        let stop = CancellationToken::new();
        Ok(Self { settings, socket, stop, clock, telemetry, metrics, keeper, health, scrapes })
    }

    /// Where probes and metrics are served, where they are.
    pub(super) fn ports(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let address = |port: &Option<BoundPort>| port.as_ref().map(|port| port.address);
        (address(&self.health), address(&self.scrapes))
    }

    /// Cancelled, it stops the provider.
    pub(super) fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Serves until it is stopped, then lets the calls in hand end and tidies up.
    pub(super) async fn run(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Self { settings, socket, stop, clock, telemetry, metrics, keeper, health, scrapes } =
            self;
        let identity = settings.identity;
        let lineage = identity.lineage.unwrap_or(keeper.lineage);
        let ring = KeyRing::new(
            KeyIdentity::new(lineage, identity.generation),
            identity.rotation_delay,
            identity.accepted,
        );
        let ports =
            Ports { kek: keeper.kek, clock: Arc::clone(&clock), telemetry: Arc::clone(&telemetry) };
        let watch = KeyWatch::new(ports, ring, settings.outage_policy, settings.outage_grace);
        let watch = Arc::new(watch);
        let kms = Arc::new(KeyService::new(Arc::clone(&watch), settings.legacy_decrypt));

        let mut background = JoinSet::new();
        if let Some(session) = keeper.session.clone() {
            background.spawn(async move { session.run().await });
        }
        background.spawn(Observer::new(watch).run());
        let readiness = Readiness::default();
        serve_port(&mut background, health, Endpoints::Health(readiness.clone()));
        let text = move || metrics.text().map_err(|error| error.to_string());
        serve_port(&mut background, scrapes, Endpoints::Metrics(Arc::new(text)));

        let BoundSocket { listener, file, .. } = socket;
        let file = Arc::new(file);
        let serving = Serving { kms, clock, telemetry, peers: settings.peers, drain: DRAIN };
        readiness.set(true);
        background.spawn(leave_on(stop.clone(), readiness.clone(), Arc::clone(&file)));
        let served = serving.run(listener, stop).await;
        readiness.set(false);
        file.remove();
        background.shutdown().await;
        if let Some(session) = keeper.session {
            drop(timeout(REVOKE, session.revoke()).await);
        }
        served
    }
}

impl Keeper {
    fn new(
        settings: &KeeperSettings,
        clock: &Arc<dyn Clock>,
        telemetry: &Arc<dyn Telemetry>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        match settings {
            KeeperSettings::Vault(vault) => Self::vault(vault, clock, telemetry),
            KeeperSettings::Local(path) => {
                let kek = LocalKek::open(path.clone())?;
                let lineage = kek.lineage();
                let kek = Arc::new(Deadline::new(kek, Arc::clone(clock)));
                Ok(Self { kek, lineage, session: None })
            }
        }
    }

    fn vault(
        settings: &VaultSettings,
        clock: &Arc<dyn Clock>,
        telemetry: &Arc<dyn Telemetry>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let client = Arc::new(VaultClient::new(
            settings.client.clone(),
            Arc::clone(clock),
            Arc::clone(telemetry),
        )?);
        let approle =
            AppRole::new(Arc::clone(&client), Arc::clone(clock), settings.approle.clone());
        let session =
            Arc::new(Session::new(Arc::new(approle), Arc::clone(clock), Arc::clone(telemetry)));
        let lineage = settings.transit.lineage();
        let kek = TransitKek::new(client, Arc::clone(&session), settings.transit.clone());
        let kek = Arc::new(Deadline::new(kek, Arc::clone(clock)));
        Ok(Self { kek, lineage, session: Some(session) })
    }
}

/// As soon as a stop is asked for, nobody new is to come: calls in hand may take a while to end.
async fn leave_on(stop: CancellationToken, readiness: Readiness, file: Arc<SocketFile>) {
    stop.cancelled().await;
    readiness.set(false);
    file.remove();
}

fn bind_port(what: &str, address: SocketAddr) -> Option<BoundPort> {
    match BoundPort::bind(address) {
        Ok(port) => {
            info!(address = %port.address, "{what} port bound");
            Some(port)
        }
        Err(error) => {
            warn!(%address, %error, "the {what} port cannot be used and is off; the socket serves on. Choose another with --{what}-port");
            None
        }
    }
}

fn serve_port(tasks: &mut JoinSet<()>, port: Option<BoundPort>, endpoints: Endpoints) {
    if let Some(port) = port {
        tasks.spawn(async move {
            if let Err(error) = port.serve(endpoints).await {
                warn!(%error, "a port is not served");
            }
        });
    }
}
