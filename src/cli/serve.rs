//! `serve`: runs the provider until a clean stop.

use std::{error::Error, io, process::ExitCode, time::Duration};

use rustix::process::geteuid;
use tokio::{runtime::Runtime, signal::unix::Signal, task::spawn_blocking, time::timeout};
use tracing::{dispatcher, error, info, warn};

use super::{
    panics,
    provider::Provider,
    runtime::{hangups, runtime, signals},
    terminal::complain,
    warnings,
};
use crate::{
    adapters::{
        system::hardening::{self, MissingProtection},
        telemetry::{logging, outlets, traces::Traces},
    },
    config::settings::Settings,
};

/// How long the end of the process waits for the last traces.
const FLUSH: Duration = Duration::from_secs(1);

/// The runtime of a process that SIGHUP does not end.
pub(super) struct Begun {
    runtime: Runtime,
    hangups: Signal,
}

/// Begins the process. Call this before any file is read: a file may be slow, and a SIGHUP
/// meanwhile makes the provider read its files again as soon as it runs.
pub(super) fn begin() -> io::Result<Begun> {
    let runtime = runtime()?;
    let hangups = hangups(&runtime)?;
    Ok(Begun { runtime, hangups })
}

pub(super) fn run(
    begun: io::Result<Begun>,
    settings: &Settings,
    version: &'static str,
) -> ExitCode {
    panics::install_hook();
    match begun.map_err(Into::into).and_then(|begun| start(begun, settings, version)) {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Err(cause) => {
            error!(%cause, "cannot run");
            complain(&cause.to_string());
            ExitCode::FAILURE
        }
    }
}

fn start(
    Begun { runtime, hangups }: Begun,
    settings: &Settings,
    version: &'static str,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    // The sandbox applies only to threads that start after it. Until then log lines wait in a
    // queue.
    outlets::hold();
    let early = logging::dispatch(settings.log_level, settings.log_form, None)?;
    let bound = dispatcher::with_default(&early, || bind(settings, version, &runtime, hangups));
    // The exporter needs the runtime and starts a thread, so it is built after the sandbox.
    let within = runtime.enter();
    let traces = settings.traces.as_deref().map(Traces::to).transpose();
    drop(within);
    logging::init(
        settings.log_level,
        settings.log_form,
        traces.as_ref().ok().and_then(Option::as_ref),
    )?;
    outlets::release()?;
    let (provider, traces) = (bound?, traces?);
    let ended = runtime.block_on(async {
        let ended = provider.run().await;
        if let Some(traces) = traces {
            drop(timeout(FLUSH, spawn_blocking(move || traces.flush())).await);
        }
        ended
    });
    // Does not wait for a collector that does not answer.
    runtime.shutdown_background();
    ended
}

/// Binds the socket and the ports, then restricts this process. Leaves no thread behind, unless a file
/// system hangs.
fn bind(
    settings: &Settings,
    version: &'static str,
    runtime: &Runtime,
    hangups: Signal,
) -> Result<Provider, Box<dyn Error + Send + Sync>> {
    let signals = signals(runtime, hangups)?;
    info!(version, pid = std::process::id(), "starting");
    log_warnings(settings);
    let mut provider = Provider::bind(settings.clone(), version, signals)?;
    provider.restrict();
    Ok(provider)
}

/// Logs at each start what an operator should know about this configuration.
fn log_warnings(settings: &Settings) {
    for missed in hardening::harden() {
        match missed {
            MissingProtection::CoreFiles => info!("{missed}"),
            MissingProtection::Lock { swap: false } => info!("{missed}"),
            MissingProtection::Lock { swap: true } => warn!("{missed}"),
        }
    }
    for warning in warnings::of(settings, Some(geteuid())) {
        warn!("{warning}");
    }
}
