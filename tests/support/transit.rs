//! A keeper that is connected to a server as in `serve`.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::task::JoinHandle;
use vault_kube_kms::{
    adapters::{
        layers::deadline::Deadline,
        system::{clock::SystemClock, private_file::OwnerOnlyFile, watched_file::WatchedFile},
        vault::{
            address::VaultAddress,
            client::VaultClient,
            key_path::{KeyPath, MountPath, Namespace},
            login::{
                LoginSettings,
                approle::{AppRoleSettings, RoleId},
                credential_file::LoginFiles,
                method::MethodSettings,
            },
            servers::ServerSettings,
            session::VaultSession,
            tls::{Identity, TlsSettings, Trust},
            transit::{TransitKek, TransitSettings},
        },
    },
    domain::key::KekVersion,
    ports::{
        clock::Clock,
        kek::Kek,
        telemetry::{Event, Telemetry},
    },
    testkit::{Hook, Subject},
};

use super::admin::{Admin, Provisioned};

/// Discards every event.
#[derive(Debug)]
pub struct Silence;

impl Telemetry for Silence {
    fn record(&self, _: Event<'_>) {}
}

/// The settings of a keeper on a server.
pub struct Wiring {
    pub servers: ServerSettings,
    pub login: LoginSettings,
    pub transit: TransitSettings,
    /// Whether the keeper is of a process that serves.
    pub serves: bool,
}

impl Wiring {
    /// Returns the settings of the `AppRole`.
    pub fn approle(&mut self) -> &mut AppRoleSettings {
        match &mut self.login.method {
            MethodSettings::AppRole(settings) => settings,
            other => panic!("{other:?}"),
        }
    }
}

/// A Transit key on a server, and the tasks that keep it reachable.
pub struct TransitSubject {
    pub kek: Arc<dyn Kek>,
    pub client: Arc<VaultClient>,
    pub admin: Admin,
    pub key: String,
    pub secret_id_path: PathBuf,
    pub clock: Arc<dyn Clock>,
    session: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl TransitSubject {
    /// Makes a keeper for the key and role at the server of `admin`.
    pub fn new(admin: Admin, provisioned: Provisioned) -> Self {
        Self::with(admin, provisioned, |_| ())
    }

    /// The same, with some settings changed.
    pub fn with(admin: Admin, provisioned: Provisioned, change: impl FnOnce(&mut Wiring)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let secret_id_path = directory.path().join("secret-id");
        fs::write(&secret_id_path, format!("{}\n", provisioned.secret_id)).unwrap();
        let trust = admin.ca.clone().map_or(Trust::System, Trust::Bundle);
        let mut wiring = Wiring {
            servers: ServerSettings {
                addresses: vec![VaultAddress::parse(&admin.address).unwrap()],
                tls: TlsSettings {
                    trust,
                    identity: Identity::None,
                    server_name: None,
                    require_pq: false,
                },
                connect_timeout: Duration::from_secs(2),
                request_timeout: Duration::from_secs(2),
            },
            login: LoginSettings {
                mount: MountPath::parse("approle").unwrap(),
                namespace: Namespace::default(),
                timeout: Duration::from_secs(30),
                method: MethodSettings::AppRole(AppRoleSettings {
                    role_id: RoleId::Given(provisioned.role_id),
                    secret_id_path: Some(secret_id_path.clone()),
                    secret_id_wrapped: false,
                    secret_id_cache: None,
                }),
                ignored: Vec::new(),
            },
            transit: TransitSettings {
                key: KeyPath::of_parts("transit", &provisioned.key).unwrap(),
                namespace: Namespace::default(),
                auth_namespace: Namespace::default(),
                require_enterprise: false,
            },
            serves: true,
        };
        change(&mut wiring);
        let Wiring { servers, login, transit, serves } = wiring;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let client = Arc::new(VaultClient::new(servers, clock.clone(), Arc::new(Silence)).unwrap());
        let files = LoginFiles {
            watched: &|path, most| Arc::new(WatchedFile::new(path.to_owned(), most)),
            private: &|path| Arc::new(OwnerOnlyFile::new(path.to_owned())),
            identity: &|agent| unreachable!("{agent:?} is not configured"),
            unwraps: serves,
        };
        let login = login.open(client.clone(), clock.clone(), &files);
        let session = Arc::new(VaultSession::new(login, clock.clone(), Arc::new(Silence)));
        let kek = TransitKek::new(client.clone(), session.clone(), transit);
        Self {
            kek: Arc::new(Deadline::new(Arc::new(kek), clock.clone())),
            client,
            admin,
            key: provisioned.key,
            secret_id_path,
            clock,
            session: tokio::spawn(async move { session.run().await }),
            _directory: directory,
        }
    }
}

impl Drop for TransitSubject {
    fn drop(&mut self) {
        self.session.abort();
    }
}

#[async_trait]
impl Subject for TransitSubject {
    fn kek(&self) -> Arc<dyn Kek> {
        self.kek.clone()
    }

    async fn rotate(&self) {
        self.admin.rotate(&self.key).await;
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    async fn retire(&self, version: KekVersion) -> Hook {
        self.admin.retire(&self.key, version.get()).await;
        Hook::Done
    }

    async fn replace(&self) -> Hook {
        self.admin.replace(&self.key).await;
        Hook::Done
    }
}
