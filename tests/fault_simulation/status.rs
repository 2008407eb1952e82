//! Calls Status as kube-apiserver does. Compares every answer with the answers of the keeper and
//! with Encrypt at the same moment.

use std::time::Duration;

use vault_kube_kms::{
    domain::error::{Code, KmsError},
    ports::kms::{KeyManagement as _, StatusAnswer},
};

use super::{
    chance::Chance,
    invariants::{KEY_ID_ADVANCES, REFUSAL_STANDS, STATUS_IS_FRESH, STATUS_IS_KEPT, STATUS_LASTS},
    load::ApiServer,
};

impl ApiServer {
    /// Asks Status now and then, and Encrypt where the key id is another one than that of the seed
    /// in use, as where Status refuses; sometimes all the same, as after an API server's restart.
    pub async fn ask_status(self, mut chance: Chance) {
        let (mut held, mut newest) = (None, 0);
        loop {
            self.pause(&mut chance, 500, 3_000).await;
            let moment = self.fault_log.now();
            let status = self.plugin.service.status();
            self.check("status", moment, status.as_ref().err());
            if let Ok(status) = &status {
                self.check_freshness(status);
                self.check_refusal(status);
                newest = self.check_advance(newest, status);
            }
            let is_news = status.as_ref().is_ok_and(|status| Some(&status.key_id) != held.as_ref());
            let refuses = status.as_ref().is_err_and(|error| !error.code().is_outage());
            let asks = chance.once_in(if refuses { 4 } else { 20 });
            if is_news || asks {
                let encrypted = self.encrypt(&mut chance).await;
                self.check_agreement(&status, encrypted.as_deref());
                held = status.ok().filter(|_| encrypted.is_some()).map(|status| status.key_id);
            }
        }
    }

    fn check_freshness(&self, status: &StatusAnswer) {
        let cluster = &self.plugin.network.cluster;
        let read = cluster.state().measures.key_read(self.plugin.index);
        let age = read.map_or_else(|| cluster.journal.started().elapsed(), |at| at.elapsed());
        if age > STATUS_LASTS {
            let id = status.key_id.as_str();
            let what = format_args!("plugin {} tells {id} {age:?} after", self.plugin.index);
            cluster.journal.violated(&STATUS_IS_FRESH, what);
        }
    }

    /// An answer takes some time to arrive.
    fn check_refusal(&self, status: &StatusAnswer) {
        let cluster = &self.plugin.network.cluster;
        let missing = cluster.state().measures.known_missing(self.plugin.index);
        if let Some(at) = missing.filter(|at| at.elapsed() > Duration::from_secs(1)) {
            let (id, ago) = (status.key_id.as_str(), at.elapsed());
            let what = format_args!("plugin {} tells {id} {ago:?} after", self.plugin.index);
            cluster.journal.violated(&REFUSAL_STANDS, what);
        }
    }

    fn check_advance(&self, newest: u32, status: &StatusAnswer) -> u32 {
        let id = status.key_id.as_str();
        let number = id.trim_start_matches('v').split('.').next().unwrap();
        let version = number.parse().unwrap();
        if version < newest {
            let what = format_args!("plugin {} tells {id} after {newest}", self.plugin.index);
            self.plugin.network.cluster.journal.violated(&KEY_ID_ADVANCES, what);
        }
        newest.max(version)
    }

    fn check_agreement(&self, status: &Result<StatusAnswer, KmsError>, encrypted: Option<&str>) {
        let Some(encrypted) = encrypted else { return };
        let agrees = match status {
            Ok(status) => status.key_id.as_str() == encrypted,
            // An outage does not keep a wrap from working. At the start, Encrypt waits for the first
            // answer of the keeper and for the proof.
            Err(error) => {
                let waits = [Code::Starting, Code::ProofPending].contains(&error.code());
                waits || error.code().is_outage()
            }
        };
        if !agrees {
            let told = status.as_ref().map(|status| status.key_id.as_str());
            let index = self.plugin.index;
            let what = format_args!("plugin {index} told {told:?} and wrapped under {encrypted}");
            self.plugin.network.cluster.journal.violated(&STATUS_IS_KEPT, what);
        }
    }
}
