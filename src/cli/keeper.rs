//! The keeper put together: the one place where one is chosen, in its layers.

use std::{error::Error, sync::Arc};

use crate::{
    adapters::{
        layers::{batch::Batch, coalesce::Coalesce, deadline::Deadline},
        local::keeper::LocalKek,
        vault::{
            approle::AppRole, capabilities::Capabilities, client::VaultClient, session::Session,
            transit::TransitKek,
        },
    },
    config::settings::{KeeperSettings, Settings, VaultSettings},
    domain::{
        key_id::{KeyIdentity, Lineage},
        rotation::KeyRing,
        watch::KeyWatch,
    },
    ports::{Ports, clock::Clock, kek::Kek, telemetry::Telemetry},
};

/// A keeper in its layers, and what keeps it going.
pub(super) struct Keeper {
    pub(super) kek: Arc<dyn Kek>,
    pub(super) session: Option<Arc<Session>>,
    /// What its policies allow can be asked of some keepers.
    pub(super) capabilities: Option<Capabilities>,
    lineage: Lineage,
}

/// What every keeper gets: each caller is held to its deadline, equal unwraps share a call, and
/// those that wait go together.
fn layered(kek: impl Kek, clock: &Arc<dyn Clock>, telemetry: &Arc<dyn Telemetry>) -> Arc<dyn Kek> {
    let batch = Batch::new(kek, Arc::clone(clock), Arc::clone(telemetry));
    let coalesce = Coalesce::new(batch, Arc::clone(clock), Arc::clone(telemetry));
    Arc::new(Deadline::new(coalesce, Arc::clone(clock)))
}

impl Keeper {
    /// The keeper that `settings` name. Nothing is asked of it yet.
    pub(super) fn new(
        settings: &KeeperSettings,
        clock: &Arc<dyn Clock>,
        telemetry: &Arc<dyn Telemetry>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        match settings {
            KeeperSettings::Vault(vault) => Self::vault(vault, clock, telemetry),
            KeeperSettings::Local(path) => {
                let kek = LocalKek::open(path.clone())?;
                let lineage = kek.lineage();
                let kek = layered(kek, clock, telemetry);
                Ok(Self { kek, lineage, session: None, capabilities: None })
            }
        }
    }

    fn vault(
        settings: &VaultSettings,
        clock: &Arc<dyn Clock>,
        telemetry: &Arc<dyn Telemetry>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let client = Arc::new(VaultClient::new(
            settings.client.clone(),
            Arc::clone(clock),
            Arc::clone(telemetry),
        )?);
        let approle =
            AppRole::new(Arc::clone(&client), Arc::clone(clock), settings.approle.clone());
        let session =
            Arc::new(Session::new(Arc::new(approle), Arc::clone(clock), Arc::clone(telemetry)));
        let lineage = settings.transit.lineage();
        let transit = settings.transit.clone();
        let capabilities =
            Capabilities::new(Arc::clone(&client), Arc::clone(&session), transit.clone());
        let kek = TransitKek::new(client, Arc::clone(&session), transit);
        let kek = layered(kek, clock, telemetry);
        Ok(Self { kek, lineage, session: Some(session), capabilities: Some(capabilities) })
    }

    /// The knowledge of its key, under the identity that `settings` give it.
    pub(super) fn watch(
        &self,
        settings: &Settings,
        clock: &Arc<dyn Clock>,
        telemetry: &Arc<dyn Telemetry>,
    ) -> KeyWatch {
        let ports = Ports {
            kek: Arc::clone(&self.kek),
            clock: Arc::clone(clock),
            telemetry: Arc::clone(telemetry),
        };
        let identity = settings.identity.clone();
        let lineage = identity.lineage.unwrap_or_else(|| self.lineage.clone());
        let ring = KeyRing::new(
            KeyIdentity::new(lineage, identity.generation),
            identity.rotation_delay,
            identity.accepted,
        );
        KeyWatch::new(ports, ring, settings.outage_policy, settings.outage_grace)
    }
}
