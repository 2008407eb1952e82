//! Puts the layers around a keeper, and builds the state of its key.

use std::sync::Arc;

use crate::{
    adapters::layers,
    config::settings::Settings,
    domain::{key_id::KeyIdentity, rotation::KeyRing, watch::KeyWatch},
    ports::{Ports, clock::Clock, keeper::Keeper, telemetry::Telemetry},
};

/// Returns the state of the key of `keeper`. All layers are around the keeper, and key ids have the
/// identity that `settings` give.
pub(super) fn watch(
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
