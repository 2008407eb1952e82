//! Checks the keeper, then its key.

use std::{sync::Arc, time::Duration};

use super::{key, proof_recorder::ProofRecorder};
use crate::{
    adapters::system::clock::SystemClock,
    cli::keeper::{self, RunningKeeper},
    config::settings::Settings,
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
    match RunningKeeper::open(settings.keeper.as_ref(), &clock, &telemetry) {
        Ok(running) => {
            if running.keeper().check(report).await {
                let with = (&clock, &telemetry);
                check_key(running.keeper(), settings, with, &recorder, report).await;
            }
            running.close().await;
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
    (clock, telemetry): (&Arc<dyn Clock>, &Arc<dyn Telemetry>),
    recorder: &ProofRecorder,
    report: &mut Report,
) {
    let described = Arc::clone(keeper).kek().describe(clock.now().after(KEY_TIMEOUT)).await;
    let wall = clock.wall();
    match described {
        Ok(snapshot) => {
            let watch = keeper::watch(keeper, settings, clock, telemetry);
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
