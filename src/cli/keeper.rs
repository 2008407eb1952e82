//! The keeper put together: the one place where one is chosen, in its layers.

use std::{error::Error, sync::Arc};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::watch;

use crate::{
    adapters::{
        layers,
        local::keeper::LocalKek,
        system::{private_file::OwnFile, reread::Reread, watched_file::WatchedFile},
        vault::{
            approle::{AppRole, AppRoleFiles, AppRoleSettings, secret_id::CREDENTIAL_MAX},
            bundle::BUNDLE_MAX,
            capabilities::Capabilities,
            client::VaultClient,
            session::Session,
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

/// A keeper in its layers.
pub(super) struct Keeper {
    pub(super) kek: Arc<dyn Kek>,
    /// Its token is to be ended when all is over.
    pub(super) session: Option<Arc<Session>>,
    /// How its endpoints are can be asked of some keepers.
    pub(super) client: Option<Arc<VaultClient>>,
    /// What its policies allow can be asked of some keepers.
    pub(super) capabilities: Option<Capabilities>,
    lineage: Lineage,
}

/// The files that logins are made of.
pub(super) fn files(settings: &AppRoleSettings, reread: &watch::Receiver<()>) -> AppRoleFiles {
    settings.files(
        |path| {
            let file = Arc::new(WatchedFile::new(path.to_owned(), CREDENTIAL_MAX));
            Arc::new(Reread::new(file, reread.clone()))
        },
        |path| Arc::new(OwnFile::new(path.to_owned())),
    )
}

/// What keeps a keeper going: to be run in the background, each for ever and under its name.
pub(super) type Tasks = Vec<(&'static str, BoxFuture<'static, ()>)>;

type Made = Result<(Keeper, Tasks), Box<dyn Error + Send + Sync>>;

impl Keeper {
    /// The keeper that `settings` name. Nothing is asked of it yet.
    ///
    /// With each change of `reread` its files are read anew.
    pub(super) fn new(
        settings: &KeeperSettings,
        reread: &watch::Receiver<()>,
        clock: &Arc<dyn Clock>,
        telemetry: &Arc<dyn Telemetry>,
    ) -> Made {
        match settings {
            KeeperSettings::Vault(vault) => Self::vault(vault, reread, clock, telemetry),
            KeeperSettings::Local(path) => {
                let kek = LocalKek::open(path.clone())?;
                let lineage = kek.lineage();
                let kek = layers::around(kek, clock, telemetry);
                let keeper = Self { kek, session: None, client: None, capabilities: None, lineage };
                Ok((keeper, Tasks::new()))
            }
        }
    }

    fn vault(
        settings: &VaultSettings,
        reread: &watch::Receiver<()>,
        clock: &Arc<dyn Clock>,
        telemetry: &Arc<dyn Telemetry>,
    ) -> Made {
        let client = Arc::new(VaultClient::new(
            settings.client.clone(),
            Arc::clone(clock),
            Arc::clone(telemetry),
        )?);
        let approle = settings.approle.clone();
        let files = files(&approle, reread);
        let approle = AppRole::new(Arc::clone(&client), Arc::clone(clock), approle, files);
        let session =
            Arc::new(Session::new(Arc::new(approle), Arc::clone(clock), Arc::clone(telemetry)));
        let lineage = settings.transit.lineage();
        let transit = settings.transit.clone();
        let capabilities =
            Capabilities::new(Arc::clone(&client), Arc::clone(&session), transit.clone());
        let kek = TransitKek::new(Arc::clone(&client), Arc::clone(&session), transit);
        let kek = layers::around(kek, clock, telemetry);
        let running = Arc::clone(&session);
        let (warm, followed) = (Arc::clone(&client), Arc::clone(&client));
        // It ends where there is only one endpoint.
        let greeting = async move {
            warm.keep_warm().await;
            std::future::pending::<()>().await;
        };
        let mut tasks: Tasks = vec![
            ("session", async move { running.run().await }.boxed()),
            ("greeting", greeting.boxed()),
        ];
        if let Some(path) = settings.ca_file.clone() {
            let file = Arc::new(WatchedFile::new(path, BUNDLE_MAX));
            let file = Arc::new(Reread::new(file, reread.clone()));
            let follow = async move { followed.follow_authorities(file).await };
            tasks.push(("authorities", follow.boxed()));
        }
        let (session, client) = (Some(session), Some(client));
        Ok((Self { kek, session, client, capabilities: Some(capabilities), lineage }, tasks))
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
