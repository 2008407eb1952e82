//! Checks the keeper, then its key.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};

use super::{key, proof_recorder::ProofRecorder};
use crate::{
    adapters::system::clock::SystemClock,
    cli::keeper,
    config::{keepers::Surroundings, settings::Settings},
    ports::{
        clock::Clock,
        finding::{
            Area::{Binding, Clock as Clocks, Files, Key},
            Finding, Report,
        },
        keeper::Keeper,
        telemetry::Telemetry,
    },
};

/// The most time for reading the key.
const KEY_TIMEOUT: Duration = Duration::from_secs(8);

pub(super) async fn check(settings: &Settings, report: &mut Report) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let recorder = Arc::new(ProofRecorder::default());
    let telemetry: Arc<dyn Telemetry> = Arc::<ProofRecorder>::clone(&recorder);
    let surroundings = Surroundings { clock, telemetry, reread: watch::channel(()).1 };
    match settings.keeper.open(&surroundings) {
        Ok(keeper) => {
            let mut background = JoinSet::new();
            for (_, task) in keeper.tasks() {
                background.spawn(task);
            }
            if keeper.check(report).await {
                check_key(&keeper, settings, &surroundings, &recorder, report).await;
            }
            background.shutdown().await;
            keeper.close().await;
        }
        Err(error) => {
            report.add(Finding::from_text(Files, &error.to_string()));
            report.add_unchecked(&[Key, Binding]);
        }
    }
}

async fn check_key(
    keeper: &Arc<dyn Keeper>,
    settings: &Settings,
    with: &Surroundings,
    recorder: &ProofRecorder,
    report: &mut Report,
) {
    let described = Arc::clone(keeper).kek().describe(with.clock.now().after(KEY_TIMEOUT)).await;
    let wall = with.clock.wall();
    match described {
        Ok(snapshot) => {
            let watch = keeper::watch(keeper, settings, &with.clock, &with.telemetry);
            watch.read_metadata().await;
            watch.prove(Duration::MAX).await;
            key::settings(&snapshot, watch.standing(), report);
            key::binding(&recorder.proofs(), report);
            key::clock(&snapshot, wall, report);
        }
        Err(error) => {
            report.add(Finding::from_error(Key, &error));
            report.add_unchecked(&[Binding, Clocks]);
        }
    }
}
