//! The keeper: what it says of itself; then its key.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};

use super::{key, notes::Notes};
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
const STEP: Duration = Duration::from_secs(8);

pub(super) async fn check(settings: &Settings, report: &mut Report) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let notes = Arc::new(Notes::default());
    let telemetry: Arc<dyn Telemetry> = Arc::<Notes>::clone(&notes);
    let surroundings = Surroundings { clock, telemetry, reread: watch::channel(()).1 };
    match settings.keeper.open(&surroundings) {
        Ok(keeper) => {
            let mut background = JoinSet::new();
            for (_, task) in keeper.tasks() {
                background.spawn(task);
            }
            if keeper.check(report).await {
                ask(&keeper, settings, &surroundings, &notes, report).await;
            }
            background.shutdown().await;
            keeper.close().await;
        }
        Err(error) => {
            report.add(Finding::told(Files, &error.to_string()));
            report.leave_out(&[Key, Binding]);
        }
    }
}

async fn ask(
    keeper: &Arc<dyn Keeper>,
    settings: &Settings,
    with: &Surroundings,
    notes: &Notes,
    report: &mut Report,
) {
    let described = Arc::clone(keeper).kek().describe(with.clock.now().after(STEP)).await;
    let wall = with.clock.wall();
    match described {
        Ok(snapshot) => {
            let watch = keeper::watch(keeper, settings, &with.clock, &with.telemetry);
            watch.read_metadata().await;
            watch.prove(Duration::MAX).await;
            key::settings(&snapshot, watch.standing(), report);
            key::binding(&notes.read().proofs, report);
            key::clock(&snapshot, wall, report);
        }
        Err(error) => {
            report.add(Finding::failed(Key, &error));
            report.leave_out(&[Binding, Clocks]);
        }
    }
}
