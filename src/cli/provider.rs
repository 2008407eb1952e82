//! Builds the provider: chooses adapters by the settings and connects them through the ports.

use std::{error::Error, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};
use tracing::{error, info, warn};

use super::{background::Background, keeper, runtime::Signals, sandbox, statusz, watchdog};
use crate::{
    adapters::{
        grpc::{
            server::{ConnectionAge, KmsServer},
            socket::BoundSocket,
            socket_guard::SocketEvent,
        },
        http::{
            routes::{Readiness, Routes},
            server::BoundPort,
        },
        system::{
            clock::SystemClock,
            notify,
            sandbox::{Report, enter},
        },
        telemetry::{audit::AuditLog, metrics::Metrics, outlets, recorder::Recorder},
    },
    config::{keepers::Surroundings, settings::Settings},
    domain::{observer::Observer, service::KeyService},
    ports::{audit::Audit, clock::Clock, keeper::Keeper, telemetry::Telemetry},
};

/// How long running calls may take to end after a stop was requested.
const DRAIN: Duration = Duration::from_secs(5);

/// How long the provider waits for the keeper to close.
const CLOSE: Duration = Duration::from_secs(3);

/// How long calls on a socket from systemd wait for the first read of the key. It is less than the
/// 3 s that an API server waits for a call.
const FIRST_READ: Duration = Duration::from_secs(2);

/// The reasons that `/readyz` gives while the provider takes no calls.
const LOST: &str = "the socket was removed or replaced; see the log";
const STOPPING: &str = "plugin is stopping";

/// A provider whose socket is bound. [`Provider::run`] serves it.
pub(super) struct Provider {
    settings: Settings,
    version: &'static str,
    socket: BoundSocket,
    signals: Signals,
    clock: Arc<dyn Clock>,
    telemetry: Arc<dyn Telemetry>,
    metrics: Arc<Metrics>,
    recorder: Arc<Recorder>,
    keeper: Arc<dyn Keeper>,
    health: Option<BoundPort>,
    scrapes: Option<BoundPort>,
    audit: Option<Arc<AuditLog>>,
    /// How this process is restricted. `None` without the sandbox.
    sandbox: Option<Report>,
}

impl Provider {
    /// Binds the socket and the ports of `settings`. A busy port is only a warning. Cancelling the
    /// stop of `signals` stops the provider.
    ///
    /// # Errors
    /// When the socket cannot be bound, or the metrics, the audit log or the keeper cannot be set
    /// up.
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
        let recorder = Arc::new(Recorder::new(Arc::clone(&metrics), Arc::clone(&clock)));
        let telemetry: Arc<dyn Telemetry> = Arc::<Recorder>::clone(&recorder);
        let audit = audit(&settings, &clock, &metrics)?;
        let keeper = settings.keeper.open(&Surroundings {
            clock: Arc::clone(&clock),
            telemetry: Arc::clone(&telemetry),
            reread: signals.hangup.clone(),
            serves: true,
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
            recorder,
            keeper,
            health,
            scrapes,
            audit,
            sandbox: None,
        })
    }

    /// Restricts this process to what the provider uses from now on, unless the settings disable
    /// the sandbox. Call this on the main thread before another thread runs.
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

    /// Returns the addresses of the probes and of the metrics. `None` for a port that is not bound.
    pub(super) fn ports(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let address = |port: &Option<BoundPort>| port.as_ref().map(|port| port.address);
        (address(&self.health), address(&self.scrapes))
    }

    /// Serves until a stop, lets the running calls end for at most 5 s, and closes everything.
    ///
    /// # Errors
    /// When the server fails or a background task ends.
    pub(super) async fn run(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Self {
            settings,
            version,
            socket,
            signals,
            clock,
            telemetry,
            metrics,
            recorder,
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
        let status = statusz::StatusSource::new(
            Arc::clone(&watch),
            version,
            Arc::clone(&keeper),
            recorder,
            &settings,
            sandbox,
        );
        let mut observer = Observer::new(watch);
        if !socket.ours {
            // Clients that connect now wait in the backlog of systemd's socket. Otherwise their
            // calls would fail with "starting".
            tokio::select! {
                _read = timeout(FIRST_READ, observer.tick()) => (),
                () = signals.stop.cancelled() => (),
            }
        }
        background.spawn("observer", observer.run());
        let readiness = Readiness::default();
        serve_port(&mut background, "health port", health, Routes::Health(readiness.clone()));
        let text = move || metrics.text().map_err(|error| error.to_string());
        let admin = Routes::Admin(Arc::new(text), Arc::new(move || status.now()));
        serve_port(&mut background, "metrics port", scrapes, admin);
        if let Some(limit) = notify::watchdog() {
            let feed =
                watchdog::feed(socket.address.clone(), readiness.clone(), limit, notify::alive);
            background.spawn("watchdog", feed);
        }
        let Signals { stop, hangup } = signals;
        background.spawn("reread", log_rereads(hangup));

        let (listeners, guard) = socket.guarded();
        if let Some(audit) = &audit {
            audit.begin()?;
        }
        let entries = audit.clone().map(|audit| -> Arc<dyn Audit> { audit });
        let peers = settings.peers;
        let serving = KmsServer {
            kms,
            clock,
            telemetry,
            audit: entries,
            peers,
            age: ConnectionAge::USUAL,
            drain: DRAIN,
        };
        readiness.set(Ok(()));
        let guarding = guard.keep(&stop, |event| report_socket(&event, &readiness));
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
            // Ends `guarding` and `leaving` too, when the server failed by itself.
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

/// Opens the audit log. Returns `None` when the settings have none.
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

/// Logs each SIGHUP. The readers of the files receive the signal themselves.
async fn log_rereads(mut hangup: watch::Receiver<()>) {
    while hangup.changed().await.is_ok() {
        info!("SIGHUP: credentials and authorities are read again");
    }
    std::future::pending::<()>().await;
}

/// Reports in the log and at `/readyz` whether the socket is at its path.
fn report_socket(event: &SocketEvent, readiness: &Readiness) {
    match event {
        SocketEvent::Lost(error) => {
            readiness.set(Err(LOST));
            error!(%error, "the socket was removed or replaced, and cannot be bound again");
        }
        SocketEvent::Rebound => {
            readiness.set(Ok(()));
            warn!("the socket was removed or replaced; it is bound again");
        }
        SocketEvent::Found => {
            readiness.set(Ok(()));
            info!("the socket is at its path again");
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
            // The socket is still served without this port, so the task does not end.
            std::future::pending::<()>().await;
        });
    }
}
