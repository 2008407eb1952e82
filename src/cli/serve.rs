//! `serve`: the provider, from settings to a clean stop.

use std::{error::Error, process::ExitCode};

use tracing::{error, info, warn};

use super::{
    provider::Provider,
    runtime::{runtime, stop_on_signals},
    terminal::complain,
    warnings,
};
use crate::{
    adapters::{
        system::hardening,
        telemetry::logging::{self, Form},
    },
    config::settings::Settings,
};

pub(super) fn run(settings: &Settings, version: &str) -> ExitCode {
    logging::init(settings.log_level, Form::Json);
    info!(version, pid = std::process::id(), "starting");
    warn_of(settings);
    match start(settings.clone()) {
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

fn start(settings: Settings) -> Result<(), Box<dyn Error + Send + Sync>> {
    let provider = Provider::bind(settings)?;
    runtime()?.block_on(async {
        stop_on_signals(provider.stopper())?;
        provider.run().await
    })
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
