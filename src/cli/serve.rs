//! `serve`: the provider, from settings to a clean stop.

use std::{error::Error, process::ExitCode, time::Duration};

use tokio::{task::spawn_blocking, time::timeout};
use tracing::{error, info, warn};

use super::{
    panics,
    provider::Provider,
    runtime::{runtime, signals},
    terminal::complain,
    warnings,
};
use crate::{
    adapters::{
        system::hardening,
        telemetry::{
            logging::{self, Form},
            traces::Traces,
        },
    },
    config::settings::Settings,
};

/// How long the last traces are waited for.
const FLUSH: Duration = Duration::from_secs(1);

pub(super) fn run(settings: &Settings, version: &str) -> ExitCode {
    panics::tell_in_one_line();
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

fn start(settings: &Settings, version: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let runtime = runtime()?;
    let signals = signals(&runtime)?;
    // What sends traces lives on it.
    let within = runtime.enter();
    let traces = settings.traces.as_deref().map(Traces::to).transpose()?;
    drop(within);
    logging::init(settings.log_level, Form::Json, traces.as_ref())?;
    info!(version, pid = std::process::id(), "starting");
    warn_of(settings);
    let provider = Provider::bind(settings.clone(), signals)?;
    let ended = runtime.block_on(async {
        let ended = provider.run().await;
        if let Some(traces) = traces {
            drop(timeout(FLUSH, spawn_blocking(move || traces.flush())).await);
        }
        ended
    });
    // A collector that does not answer is not waited for.
    runtime.shutdown_background();
    ended
}

/// Tells what an operator should know at every start.
fn warn_of(settings: &Settings) {
    for missed in hardening::harden() {
        info!("{missed}");
    }
    for warning in warnings::of(settings) {
        warn!("{warning}");
    }
}
