//! The provider put together: adapters chosen by the settings, wired through the ports.

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    keeper::{Keeper, Tasks},
    statusz,
};
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
        system::{clock::SystemClock, notify},
        telemetry::{last_errors::LastErrors, metrics::Metrics, recorder::Recorder},
    },
    config::settings::{KeeperSettings, Settings},
    domain::{observer::Observer, service::KeyService},
    ports::{clock::Clock, telemetry::Telemetry},
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
    last_errors: Arc<LastErrors>,
    keeper: Keeper,
    tasks: Tasks,
    health: Option<BoundPort>,
    scrapes: Option<BoundPort>,
}

impl Provider {
    /// Binds everything that `settings` ask for. Only the socket must succeed: a busy port is a
    /// warning. Cancelling `stop` stops it.
    pub(super) fn bind(
        settings: Settings,
        stop: CancellationToken,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let connection = match &settings.keeper {
            KeeperSettings::Vault(vault) => vault.client.connection(),
            KeeperSettings::Local(_) => "local".to_owned(),
        };
        let metrics = Metrics::new(&connection, settings.runtime_metrics, Arc::clone(&clock))?;
        let metrics = Arc::new(metrics);
        let recorder = Recorder::new(Arc::clone(&metrics), Arc::clone(&clock));
        let last_errors = recorder.last_errors();
        let telemetry: Arc<dyn Telemetry> = Arc::new(recorder);
        let (keeper, tasks) = Keeper::new(&settings.keeper, &clock, &telemetry)?;
        let socket = BoundSocket::bind(&settings.listen)?;
        info!(address = %socket.address, "socket bound");
        notify::ready();
        let health = settings.health.and_then(|address| bind_port("health", address));
        let scrapes = settings.metrics.and_then(|address| bind_port("metrics", address));
        Ok(Self {
            settings,
            socket,
            stop,
            clock,
            telemetry,
            metrics,
            last_errors,
            keeper,
            tasks,
            health,
            scrapes,
        })
    }

    /// Where probes and metrics are served, where they are.
    pub(super) fn ports(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let address = |port: &Option<BoundPort>| port.as_ref().map(|port| port.address);
        (address(&self.health), address(&self.scrapes))
    }

    /// Serves until it is stopped, then lets the calls in hand end and tidies up.
    pub(super) async fn run(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Self {
            settings,
            socket,
            stop,
            clock,
            telemetry,
            metrics,
            last_errors,
            keeper,
            tasks,
            health,
            scrapes,
        } = self;
        let watch = Arc::new(keeper.watch(&settings, &clock, &telemetry));
        let kms = Arc::new(KeyService::new(Arc::clone(&watch), settings.legacy_decrypt));

        let mut background = JoinSet::new();
        for task in tasks {
            background.spawn(task);
        }
        let shown = statusz::Sources::new(Arc::clone(&watch), &keeper, last_errors, &settings);
        background.spawn(Observer::new(watch).run());
        let readiness = Readiness::default();
        serve_port(&mut background, health, Endpoints::Health(readiness.clone()));
        let text = move || metrics.text().map_err(|error| error.to_string());
        let inside = Endpoints::Inside(Arc::new(text), Arc::new(move || shown.now()));
        serve_port(&mut background, scrapes, inside);

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

/// As soon as a stop is asked for, nobody new is to come: calls in hand may take a while to end.
async fn leave_on(stop: CancellationToken, readiness: Readiness, file: Arc<SocketFile>) {
    stop.cancelled().await;
    notify::stopping();
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
