//! Runs the contract suite.

use std::{fs, sync::Arc};

use aws_sdk_kms::types::KeySpec;
use vault_kube_kms::{
    adapters::system::clock::SystemClock,
    prelude::*,
    testkit::{Hook, Subject},
};

use crate::server::Server;

struct Held {
    server: Server,
    kek: Arc<dyn Kek>,
}

#[async_trait]
impl Subject for Held {
    fn kek(&self) -> Arc<dyn Kek> {
        Arc::clone(&self.kek)
    }

    async fn rotate(&self) {
        self.server.append(&self.server.make_key(KeySpec::SymmetricDefault).await);
    }

    async fn outage(&self, away: bool) -> Hook {
        if away {
            self.server.stop();
        } else {
            self.server.start_again();
        }
        Hook::Done
    }

    async fn retire(&self, version: KekVersion) -> Hook {
        let mut arns = KekVersion::all().zip(self.server.arns());
        let (_, arn) = arns.find(|(listed, _)| *listed == version).expect("a listed version");
        self.server.admin().await.disable_key().key_id(arn).send().await.unwrap();
        Hook::Done
    }

    async fn replace(&self) -> Hook {
        let other = self.server.make_key(KeySpec::SymmetricDefault).await;
        fs::write(self.server.list(), other).unwrap();
        Hook::Done
    }

    async fn hang(&self, _: bool) -> Hook {
        Hook::DoesNotApply("the layers hold the deadline; refusals.rs tests a server that hangs")
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock::new())
    }
}

vault_kube_kms::kek_contract!({
    let server = Server::start().await;
    Held { kek: server.keeper().await, server }
});
