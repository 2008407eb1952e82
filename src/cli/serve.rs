//! `serve`: runs the provider until a clean stop.

use std::{error::Error, process::ExitCode, time::Duration};

use rustix::process::geteuid;
use tokio::{runtime::Runtime, task::spawn_blocking, time::timeout};
use tracing::{dispatcher, error, info, warn};

use super::{
    panics,
    provider::Provider,
    runtime::{runtime, signals},
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

pub(super) fn run(settings: &Settings, version: &'static str) -> ExitCode {
    panics::install_hook();
    match start(settings, version) {
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

fn start(settings: &Settings, version: &'static str) -> Result<(), Box<dyn Error + Send + Sync>> {
    // The sandbox applies only to threads that start after it. Until then log lines wait in a
    // queue.
    outlets::hold();
    let runtime = runtime()?;
    let early = logging::dispatch(settings.log_level, settings.log_form, None)?;
    let bound = dispatcher::with_default(&early, || bind(settings, version, &runtime));
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
) -> Result<Provider, Box<dyn Error + Send + Sync>> {
    let signals = signals(runtime)?;
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
