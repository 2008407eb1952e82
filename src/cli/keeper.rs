//! Opens a keeper, puts the layers around it, and builds the state of its key.

use std::{error::Error, sync::Arc};

use tokio::{sync::watch, task::JoinSet};

use crate::{
    adapters::layers,
    config::{
        keepers::{KeeperSettings, Surroundings},
        settings::Settings,
    },
    domain::{key_id::KeyIdentity, rotation::KeyRing, watch::KeyWatch},
    ports::{Ports, clock::Clock, keeper::Keeper, telemetry::Telemetry},
};

/// A keeper with its background tasks, for programs without a socket. Dropping it ends the tasks.
#[derive(Debug)]
pub struct RunningKeeper {
    keeper: Arc<dyn Keeper>,
    tasks: JoinSet<()>,
}

impl RunningKeeper {
    /// Opens the keeper of `settings` and starts its tasks on the current runtime. The keeper never
    /// reads its files again because of a signal, and uses up no wrapping token.
    ///
    /// # Errors
    /// When the keeper cannot be opened. The text says why, on one line.
    pub fn open(
        settings: &dyn KeeperSettings,
        clock: &Arc<dyn Clock>,
        telemetry: &Arc<dyn Telemetry>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let keeper = settings.open(&Surroundings {
            clock: Arc::clone(clock),
            telemetry: Arc::clone(telemetry),
            reread: watch::channel(()).1,
            serves: false,
        })?;
        let mut tasks = JoinSet::new();
        for (_, task) in keeper.tasks() {
            tasks.spawn(task);
        }
        Ok(Self { keeper, tasks })
    }

    /// Returns the keeper.
    #[must_use]
    pub const fn keeper(&self) -> &Arc<dyn Keeper> {
        &self.keeper
    }

    /// Ends the tasks, and then the session of the keeper.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
        self.keeper.close().await;
    }
}

/// Returns the state of the key of `keeper`. All layers are around the keeper, and key ids have the
/// identity that `settings` give.
#[must_use]
pub fn watch(
    keeper: &Arc<dyn Keeper>,
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    telemetry: &Arc<dyn Telemetry>,
) -> KeyWatch {
    let ports = Ports {
        kek: layers::around(Arc::clone(keeper).kek(), clock, telemetry),
        clock: Arc::clone(clock),
        telemetry: Arc::clone(telemetry),
    };
    let identity = settings.identity.clone();
    let lineage = identity.lineage.unwrap_or_else(|| keeper.lineage());
    let ring = KeyRing::new(
        KeyIdentity::new(lineage, identity.generation),
        identity.rotation_delay,
        identity.accepted,
    );
    KeyWatch::new(ports, ring, settings.outage_policy, settings.outage_grace)
}
