//! `serve`: the provider, from settings to a clean stop.

use std::{error::Error, process::ExitCode};

use tracing::{error, info, warn};

use super::{
    provider::Provider,
    runtime::{runtime, stop_on_signals},
    terminal::complain,
};
use crate::{
    adapters::{
        system::hardening,
        telemetry::logging::{self, Form},
        vault::tls::Trust,
    },
    config::settings::{KeeperSettings, Settings},
};

/// Variables that other programs of this kind take a proxy from.
const PROXY_VARIABLES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

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
    for warning in &settings.warnings {
        warn!("{warning}");
    }
    match &settings.keeper {
        KeeperSettings::Vault(vault) => {
            if !vault.client.address.is_tls() {
                warn!(
                    "--vault-address is http://: seeds and tokens cross the network in clear; use https://"
                );
            } else if vault.client.tls.trust == Trust::Anybody {
                warn!(
                    "--tls-skip-verify: anybody can pose as the keeper, and --tls-ca-file is not looked at; leave the former out"
                );
            }
            for name in PROXY_VARIABLES.iter().filter(|name| std::env::var_os(name).is_some()) {
                warn!("{name} is set and IGNORED: the keeper is always spoken to directly");
            }
            warn_of_readers(&vault.approle.secret_id_path);
        }
        KeeperSettings::Local(path) => {
            warn!(path = %path.display(), "--keeper=local: the key is in a file of this node alone; losing it loses the data");
        }
    }
}

/// A secret ID that others can read is told, not refused: projected volumes are often 0644.
fn warn_of_readers(path: &std::path::Path) {
    use std::os::unix::fs::MetadataExt as _;
    if std::fs::metadata(path).is_ok_and(|found| found.mode() & 0o077 != 0) {
        warn!(path = %path.display(), "--approle-secret-id-path: group or others can read the secret ID; chmod it to 0600");
    }
}
