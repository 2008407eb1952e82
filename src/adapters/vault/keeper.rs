//! The keeper for Vault and OpenBao. It combines the client, the session and the Transit key.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    capabilities::Capabilities,
    check,
    client::VaultClient,
    client_pair::PairFiles,
    login::{credential_file::LoginFiles, port::LoginMethod},
    session::VaultSession,
    settings::VaultSettings,
    transit::TransitKek,
};
use crate::{
    domain::key_id::Lineage,
    ports::{
        clock::Clock,
        file::TextFile,
        finding::Report,
        keeper::{Keeper, KeeperView, Task},
        kek::Kek,
        telemetry::Telemetry,
    },
};

/// The files of the TLS settings that the keeper reads again while it runs.
#[derive(Debug, Default)]
pub struct TlsFiles {
    /// The PEM bundle of the authorities, if one is given.
    pub authorities: Option<Arc<dyn TextFile>>,
    /// The files of the client certificate, if they are given.
    pub client_pair: Option<PairFiles>,
}

/// How long `check` waits for a client certificate that an agent or files do not give at once.
const CERTIFICATE_WAIT: Duration = Duration::from_secs(3);

/// A keeper whose KEK is a key of the Transit engine.
#[derive(Debug)]
pub struct VaultKeeper {
    settings: VaultSettings,
    client: Arc<VaultClient>,
    session: Arc<VaultSession>,
    login: Arc<dyn LoginMethod>,
    kek: Arc<TransitKek>,
    tls: TlsFiles,
    clock: Arc<dyn Clock>,
}

impl VaultKeeper {
    /// Creates the keeper. Opens the files of the login with `files`. Follows the files of `tls`.
    /// Sends no request.
    ///
    /// # Errors
    /// Returns why TLS cannot be set up with these settings.
    pub fn new(
        settings: VaultSettings,
        files: &LoginFiles<'_>,
        tls: TlsFiles,
        clock: &Arc<dyn Clock>,
        telemetry: &Arc<dyn Telemetry>,
    ) -> Result<Self, String> {
        let client = Arc::new(VaultClient::new(
            settings.servers.clone(),
            Arc::clone(clock),
            Arc::clone(telemetry),
        )?);
        let login = settings.login.open(Arc::clone(&client), Arc::clone(clock), files);
        let method = Arc::clone(&login.method);
        let session = Arc::new(VaultSession::new(login, Arc::clone(clock), Arc::clone(telemetry)));
        let transit = settings.transit.clone();
        let kek = Arc::new(TransitKek::new(Arc::clone(&client), Arc::clone(&session), transit));
        let clock = Arc::clone(clock);
        Ok(Self { settings, client, session, login: method, kek, tls, clock })
    }
}

#[async_trait]
impl Keeper for VaultKeeper {
    fn kek(self: Arc<Self>) -> Arc<dyn Kek> {
        Arc::<TransitKek>::clone(&self.kek)
    }

    fn lineage(&self) -> Lineage {
        self.settings.transit.lineage()
    }

    fn tasks(&self) -> Vec<(&'static str, Task)> {
        let (session, checked) = (Arc::clone(&self.session), Arc::clone(&self.client));
        let login = Arc::clone(&self.login);
        let ignored = check::ignored_namespace(&self.settings.transit);
        let health_checks = async move {
            let warned = async {
                if let Some(ignored) = ignored {
                    checked.warn_if_without_namespaces(&ignored).await;
                }
            };
            tokio::join!(checked.run_health_checks(), warned);
            // With a single endpoint the health checks return at once, but a task must not end.
            std::future::pending::<()>().await;
        };
        let mut tasks: Vec<(&'static str, Task)> = vec![
            ("session", Box::pin(async move { session.run().await })),
            ("login", Box::pin(async move { login.run().await })),
            ("health checks", Box::pin(health_checks)),
        ];
        if let Some(file) = self.tls.authorities.clone() {
            let client = Arc::clone(&self.client);
            let watch = async move { client.servers().follow_authorities(file).await };
            tasks.push(("authorities", Box::pin(watch)));
        }
        if let Some(files) = self.tls.client_pair.clone() {
            let client = Arc::clone(&self.client);
            let watch = async move { client.servers().follow_client_pair(files).await };
            tasks.push(("client certificate", Box::pin(watch)));
        }
        tasks
    }

    fn view(&self) -> KeeperView {
        KeeperView::new(Some(self.session.view()), self.client.endpoints())
    }

    async fn check(&self, report: &mut Report) -> bool {
        let capabilities = Capabilities::new(
            Arc::clone(&self.client),
            Arc::clone(&self.session),
            self.settings.transit.clone(),
        );
        let servers = self.client.servers().current_settings(CERTIFICATE_WAIT).await;
        let settings = VaultSettings { servers, ..self.settings.clone() };
        check::check(&settings, &self.client, &self.session, &capabilities, &*self.clock, report)
            .await
    }

    async fn close(&self) {
        self.session.revoke().await;
    }
}
