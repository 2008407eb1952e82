//! A plugin, built as `cli::keeper` does, on a network of the model.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicUsize},
    time::Duration,
};

use tokio::task::JoinSet;
use vault_kube_kms::{
    adapters::{
        layers::{batch::Batch, coalesce::Coalesce, deadline::Deadline},
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
            vocabulary::WRAPPING_TOKEN_USED,
        },
    },
    domain::{
        error::Code, health::OutagePolicy, key_id::KeyIdentity, observer::Observer,
        rotation::KeyRing, service::KeyService, watch::KeyWatch,
    },
    ports::{Ports, clock::Clock, kek::Kek, telemetry::Telemetry},
};

use super::{
    clock::VirtualClock,
    credential_file::CredentialFile,
    model::{NODES, address, auth::ROLE_ID, network::Network},
    plants::{Lanes, Plant, Planted},
    telemetry::Ledger,
};

pub struct Plugin {
    pub index: usize,
    pub service: Arc<Planted>,
    client: Arc<VaultClient>,
    session: Arc<VaultSession>,
    pub clock: Arc<dyn Clock>,
    pub file: Arc<CredentialFile>,
    pub ledger: Arc<Ledger>,
    pub network: Network,
    /// The tasks end with the plugin.
    background: Mutex<JoinSet<()>>,
}

impl Plugin {
    /// Starts a plugin that logs in with the file `secret_id`.
    pub fn start(network: Network, secret_id: String, seed: u64, rotation_delay: Duration) -> Self {
        let index = network.client;
        let clock: Arc<dyn Clock> =
            Arc::new(VirtualClock::new(network.cluster.clone(), index, seed));
        let plant = network.plant;
        let ledger = Arc::new(Ledger::new(plant == Some(Plant::Panic)));
        let telemetry: Arc<dyn Telemetry> = ledger.clone();
        let file = Arc::new(CredentialFile::new(secret_id, seed ^ 1));
        let client = Arc::new(VaultClient::over(
            Arc::new(network.clone()),
            server_settings(index),
            clock.clone(),
            telemetry.clone(),
        ));
        let files = LoginFiles {
            watched: &|_, _| file.clone(),
            private: &|path| unreachable!("{path:?} is not configured"),
            identity: &|agent| unreachable!("{agent:?} is not configured"),
            unwraps: true,
        };
        let is_wrapped = network.cluster.state().auth.wraps;
        let login = login_settings(is_wrapped).open(client.clone(), clock.clone(), &files);
        let session = VaultSession::new(login, clock.clone(), telemetry.clone());
        let session = Arc::new(session);
        let transit = transit_settings(network.cluster.licensed);
        let identity = KeyIdentity::new(transit.lineage(), 0);
        let lanes = if plant == Some(Plant::ManyLanes) { 12 } else { 1 };
        let batch = |_| {
            let kek = TransitKek::new(client.clone(), session.clone(), transit.clone());
            Batch::new(kek, clock.clone(), telemetry.clone())
        };
        let lanes = Lanes { ways: (0..lanes).map(batch).collect(), next: AtomicUsize::new(0) };
        let coalesce = Coalesce::new(lanes, clock.clone(), telemetry.clone());
        let kek: Arc<dyn Kek> = Arc::new(Deadline::new(Arc::new(coalesce), clock.clone()));
        let ports = Ports { kek, clock: clock.clone(), telemetry };
        let ring = KeyRing::new(identity, rotation_delay, BTreeMap::new());
        let (policy, grace) = (OutagePolicy::StopWrites, Duration::from_secs(30));
        let watch = Arc::new(KeyWatch::new(ports, ring, policy, grace));
        let mut background = JoinSet::new();
        let run = session.clone();
        background.spawn(async move { run.run().await });
        let checked = client.clone();
        background.spawn(async move { checked.run_health_checks().await });
        background.spawn(Observer::new(watch.clone()).run());
        if plant == Some(Plant::EndedTask) {
            background.spawn(async {});
        }
        let service = Arc::new(Planted::new(KeyService::new(watch, true), plant));
        let background = Mutex::new(background);
        Self { index, service, client, session, clock, file, ledger, network, background }
    }

    /// Returns whether a background task has ended.
    pub fn has_lost_a_task(&self) -> bool {
        self.background.lock().unwrap().try_join_next().is_some()
    }

    /// Returns why the plugin needs a new wrapping token, if it does.
    pub fn needs_a_wrapping_token(&self) -> Option<String> {
        let closed = self.session.view().closed?;
        (closed.code() == WRAPPING_TOKEN_USED).then(|| closed.cause().to_owned())
    }

    /// Returns whether the plugin reports a stale node.
    pub fn tells_of_a_stale_node(&self) -> bool {
        let views = self.client.endpoints();
        let mut errors = views.iter().filter_map(|view| view.last_error.as_ref());
        errors.any(|error| error.code() == Code::VersionNotYet)
    }
}

/// Each plugin has another first node.
fn server_settings(first: usize) -> ServerSettings {
    let node = |offset| VaultAddress::parse(&address((first + offset) % NODES)).unwrap();
    ServerSettings {
        addresses: (0..NODES).map(node).collect(),
        tls: TlsSettings {
            trust: Trust::InsecureSkipVerify,
            identity: Identity::None,
            server_name: None,
            require_pq: false,
        },
        connect_timeout: Duration::from_secs(30),
        request_timeout: Duration::from_millis(2_500),
    }
}

fn login_settings(is_wrapped: bool) -> LoginSettings {
    LoginSettings {
        mount: MountPath::parse("approle").unwrap(),
        namespace: Namespace::default(),
        timeout: Duration::from_secs(30),
        method: MethodSettings::AppRole(AppRoleSettings {
            role_id: RoleId::Given(ROLE_ID.to_owned()),
            secret_id_path: Some(PathBuf::from("secret-id")),
            secret_id_wrapped: is_wrapped,
            secret_id_cache: None,
        }),
        ignored: Vec::new(),
    }
}

fn transit_settings(require_enterprise: bool) -> TransitSettings {
    TransitSettings {
        key: KeyPath::parse("transit/keys/k1").unwrap(),
        namespace: Namespace::default(),
        auth_namespace: Namespace::default(),
        require_enterprise,
    }
}
