//! A real OpenBao, or the server that `VAULT_ADDR` names. The whole suite has one server, and
//! each rule its own key and role.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use vault_kube_kms::{
    adapters::vault::address::VaultAddress,
    domain::key::KekVersion,
    ports::{clock::Clock, kek::Kek},
    testkit::{Hook, Subject, hold_to_every_rule},
};

use crate::support::{
    admin::{Admin, Provisioned},
    gate::{Gate, Relay},
    openbao::{OpenBao, named_by_the_environment},
    transit::TransitSubject,
};

/// A keeper that reaches a server of this machine through a relay, and one of another machine
/// directly.
struct Relayed {
    keeper: TransitSubject,
    relay: Option<Relay>,
}

impl Relayed {
    async fn new(admin: Admin, provisioned: Provisioned) -> Self {
        let server = admin.address.strip_prefix("https://127.0.0.1:");
        let port = server.and_then(|port| port.parse::<u16>().ok());
        let relay = match port {
            Some(port) => Some(Relay::to(SocketAddr::from(([127, 0, 0, 1], port))).await),
            None => None,
        };
        let keeper = TransitSubject::with(admin, provisioned, |wiring| {
            if let Some(relay) = &relay {
                let address = format!("https://{}", relay.address);
                wiring.servers.addresses = vec![VaultAddress::parse(&address).unwrap()];
            }
        });
        Self { keeper, relay }
    }

    fn set(&self, gate: Gate) -> Hook {
        match &self.relay {
            Some(relay) => relay.set(gate),
            None => return Hook::DoesNotApply("the server is on another machine"),
        }
        Hook::Done
    }
}

#[async_trait]
impl Subject for Relayed {
    fn kek(&self) -> Arc<dyn Kek> {
        self.keeper.kek()
    }

    async fn rotate(&self) {
        self.keeper.rotate().await;
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.keeper.clock()
    }

    async fn outage(&self, away: bool) -> Hook {
        self.set(if away { Gate::Closed } else { Gate::Open })
    }

    async fn retire(&self, version: KekVersion) -> Hook {
        self.keeper.retire(version).await
    }

    async fn replace(&self) -> Hook {
        self.keeper.replace().await
    }

    async fn hang(&self, hangs: bool) -> Hook {
        self.set(if hangs { Gate::Stuck } else { Gate::Open })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_keeps_every_rule() {
    let (admin, _server) = match named_by_the_environment() {
        Some(admin) => (admin, None),
        None => {
            let Some(server) = OpenBao::start().await else { return };
            (server.admin.clone(), Some(server))
        }
    };
    admin.mount().await;
    let run = std::process::id();
    hold_to_every_rule(|rule| {
        let admin = admin.clone();
        async move {
            let provisioned = admin.provision(&format!("{rule}-{run}")).await;
            Relayed::new(admin, provisioned).await
        }
    })
    .await;
}
