//! The provider put together: adapters chosen by the settings, wired through the ports.

use std::{error::Error, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};
use tracing::{error, info, warn};

use super::{background::Background, keeper, runtime::Signals, sandbox, statusz, watchdog};
use crate::{
    adapters::{
        grpc::{server::KmsServer, socket::BoundSocket, socket_guard::SocketEvent},
        http::{
            routes::{Readiness, Routes},
            server::BoundPort,
        },
        system::{
            clock::SystemClock,
            notify,
            sandbox::{Report, enter},
        },
        telemetry::{
            audit::AuditLog, last_errors::LastErrors, metrics::Metrics, outlets, recorder::Recorder,
        },
    },
    config::{keepers::Surroundings, settings::Settings},
    domain::{observer::Observer, service::KeyService},
    ports::{audit::Audit, clock::Clock, keeper::Keeper, telemetry::Telemetry},
};

/// How long calls in hand may take to end after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(5);

/// How long the keeper's end is waited for.
const CLOSE: Duration = Duration::from_secs(1);

/// How long clients of a socket that systemd keeps wait for the first look at the keeper. It ends before
/// the 3 s that an API server gives a call.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Why calls are not taken, for `/readyz`.
const LOST: &str = "the socket was removed or replaced; see the log";
const STOPPING: &str = "plugin is stopping";

/// A provider whose socket is bound; [`Provider::run`] serves it.
pub(super) struct Provider {
    settings: Settings,
    version: &'static str,
    socket: BoundSocket,
    signals: Signals,
    clock: Arc<dyn Clock>,
    telemetry: Arc<dyn Telemetry>,
    metrics: Arc<Metrics>,
    last_errors: Arc<LastErrors>,
    keeper: Arc<dyn Keeper>,
    health: Option<BoundPort>,
    scrapes: Option<BoundPort>,
    audit: Option<Arc<AuditLog>>,
    /// How this process is restricted, where it is.
    sandbox: Option<Report>,
}

impl Provider {
    /// Binds everything that `settings` ask for. Only the socket must succeed: a busy port is a
    /// warning. Cancelling the stop of `signals` stops it.
    pub(super) fn bind(
        settings: Settings,
        version: &'static str,
        signals: Signals,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let connection = settings.keeper.connection();
        let metrics = Metrics::new(
            &connection,
            settings.keeper.labels(),
            settings.runtime_metrics,
            Arc::clone(&clock),
        )?;
        let metrics = Arc::new(metrics);
        let recorder = Recorder::new(Arc::clone(&metrics), Arc::clone(&clock));
        let last_errors = recorder.last_errors();
        let telemetry: Arc<dyn Telemetry> = Arc::new(recorder);
        let audit = audit(&settings, &clock, &metrics)?;
        let keeper = settings.keeper.open(&Surroundings {
            clock: Arc::clone(&clock),
            telemetry: Arc::clone(&telemetry),
            reread: signals.hangup.clone(),
        })?;
        let socket = match BoundSocket::inherited(&settings.listen)? {
            Some(passed) => passed,
            None => BoundSocket::bind(&settings.listen)?,
        };
        let how = if socket.ours { "socket bound" } else { "socket taken over from systemd" };
        info!(address = %socket.address, "{how}");
        notify::ready();
        let health = settings.health.and_then(|address| bind_port("health", address));
        let scrapes = settings.metrics.and_then(|address| bind_port("metrics", address));
        Ok(Self {
            settings,
            version,
            socket,
            signals,
            clock,
            telemetry,
            metrics,
            last_errors,
            keeper,
            health,
            scrapes,
            audit,
            sandbox: None,
        })
    }

    /// Restricts this process to what the provider uses from now on, unless the settings say
    /// otherwise. To be called on the main thread while no other runs.
    pub(super) fn restrict(&mut self) {
        if !self.settings.sandbox {
            return;
        }
        let report = enter(&sandbox::needs(&self.settings, self.socket.ours));
        info!("the sandbox is in force: {report}");
        if !report.missing.is_empty() {
            warn!("the sandbox is incomplete: {}", report.missing.join("; "));
        }
        self.sandbox = Some(report);
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
            version,
            socket,
            signals,
            clock,
            telemetry,
            metrics,
            last_errors,
            keeper,
            health,
            scrapes,
            audit,
            sandbox,
        } = self;
        let watch = Arc::new(keeper::watch(&keeper, &settings, &clock, &telemetry));
        let kms = Arc::new(KeyService::new(Arc::clone(&watch), settings.legacy_decrypt));

        let mut background = Background::default();
        for (name, task) in keeper.tasks() {
            background.spawn(name, task);
        }
        let shown = statusz::Sources::new(
            Arc::clone(&watch),
            version,
            Arc::clone(&keeper),
            last_errors,
            &settings,
            sandbox,
        );
        let mut observer = Observer::new(watch);
        if !socket.ours {
            // Clients that dialled meanwhile wait in systemd's backlog, rather than be told "starting".
            tokio::select! {
                _looked = timeout(FIRST_LOOK, observer.tick()) => (),
                () = signals.stop.cancelled() => (),
            }
        }
        background.spawn("observer", observer.run());
        let readiness = Readiness::default();
        serve_port(&mut background, "health port", health, Routes::Health(readiness.clone()));
        let text = move || metrics.text().map_err(|error| error.to_string());
        let admin = Routes::Admin(Arc::new(text), Arc::new(move || shown.now()));
        serve_port(&mut background, "metrics port", scrapes, admin);
        if let Some(limit) = notify::watchdog() {
            let feed = watchdog::feed(socket.address.clone(), readiness.clone(), limit);
            background.spawn("watchdog", feed);
        }
        let Signals { stop, hangup } = signals;
        background.spawn("reread", tell_of_rereads(hangup));

        let (listeners, guard) = socket.guarded();
        if let Some(audit) = &audit {
            audit.begin()?;
        }
        let entries = audit.clone().map(|audit| -> Arc<dyn Audit> { audit });
        let peers = settings.peers;
        let serving = KmsServer { kms, clock, telemetry, audit: entries, peers, drain: DRAIN };
        readiness.set(Ok(()));
        let guarding = guard.keep(&stop, |event| tell_of_socket(&event, &readiness));
        let leaving = async {
            stop.cancelled().await;
            notify::stopping();
            readiness.set(Err(STOPPING));
        };
        let served = async {
            let served = tokio::select! {
                served = serving.run(listeners, stop.clone()) => served,
                ended = background.first_end() => Err(ended.into()),
            };
            // Whatever ended it, nobody new is to come.
            stop.cancel();
            served
        };
        let (served, (), ()) = tokio::join!(served, guarding, leaving);
        background.shutdown().await;
        drop(timeout(CLOSE, keeper.close()).await);
        if let Some(audit) = audit {
            audit.flush(outlets::FLUSH);
        }
        served
    }
}

/// Opens the audit log, if one is wanted.
fn audit(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> io::Result<Option<Arc<AuditLog>>> {
    let Some((place, on_loss)) = settings.audit.clone() else { return Ok(None) };
    let audit = Arc::new(AuditLog::open(place, on_loss, Arc::clone(clock))?);
    let counted = Arc::clone(&audit);
    metrics.observe_audit(move || counted.lost());
    Ok(Some(audit))
}

/// Says in the log that SIGHUP was heard. Those who wait for a change of a file hear it themselves.
async fn tell_of_rereads(mut hangup: watch::Receiver<()>) {
    while hangup.changed().await.is_ok() {
        info!("SIGHUP: credentials and authorities are read anew");
    }
    std::future::pending::<()>().await;
}

/// Says in the log and at `/readyz` whether the socket is in its place.
fn tell_of_socket(event: &SocketEvent, readiness: &Readiness) {
    match event {
        SocketEvent::Lost(error) => {
            readiness.set(Err(LOST));
            error!(%error, "the socket was removed or replaced, and cannot be bound anew");
        }
        SocketEvent::Rebound => {
            readiness.set(Ok(()));
            warn!("the socket was removed or replaced; it is bound anew");
        }
    }
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

fn serve_port(
    background: &mut Background,
    name: &'static str,
    port: Option<BoundPort>,
    routes: Routes,
) {
    if let Some(port) = port {
        background.spawn(name, async move {
            if let Err(error) = port.serve(routes).await {
                warn!(%error, "the {name} is not served");
            }
            // The socket serves on without it.
            std::future::pending::<()>().await;
        });
    }
}
