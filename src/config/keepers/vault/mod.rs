//! Vault or OpenBao: a key of its Transit engine.

mod files;
mod flags;
mod login;
mod reading;
mod warnings;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;

pub(in crate::config) use self::reading::read;
use super::{KeeperKind, KeeperSettings, Opened, Surroundings};
use crate::{
    adapters::{
        spiffe::workload_api::WorkloadApi,
        system::{private_file::OwnerOnlyFile, sandbox::Needs},
        vault::{
            bundle::BUNDLE_MAX,
            client_pair::{PAIR_MAX, PairPaths},
            keeper::{TlsFiles, VaultKeeper},
            login::credential_file::LoginFiles,
            settings::VaultSettings,
            vocabulary,
        },
    },
    config::reading::Reading,
    ports::{
        finding::{Finding, Report},
        keeper::Labels,
    },
};

/// `--keeper=vault`, the default.
pub const VAULT: KeeperKind =
    KeeperKind::new("vault", flags::GROUPS, read_settings).with_policy(reading::policy);

fn read_settings(reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperSettings>> {
    read(reading).map(|settings| -> Arc<dyn KeeperSettings> { Arc::new(settings) })
}

#[async_trait]
impl KeeperSettings for VaultSettings {
    fn connection(&self) -> String {
        self.servers.connection()
    }

    fn labels(&self) -> Labels {
        vocabulary::labels()
    }

    fn warnings(&self) -> Vec<Finding> {
        warnings::of(self)
    }

    fn needs(&self, needs: &mut Needs) {
        for address in &self.servers.addresses {
            needs.connect(address.host(), address.port());
        }
        needs.read.extend(self.login.method.files().into_iter().map(|file| file.path));
        needs.read.extend(self.ca_file.clone());
        needs.read.extend(self.client_pair.iter().flat_map(PairPaths::iter).cloned());
        needs.peers.extend(self.login.method.agent().map(Path::to_owned));
        needs.written.extend(self.login.method.cache().map(Path::to_owned));
    }

    async fn check_files(&self, report: &mut Report) {
        files::check(self, report).await;
    }

    fn open(&self, with: &Surroundings) -> Opened {
        let authorities = self.ca_file.as_deref().map(|path| with.watched_file(path, BUNDLE_MAX));
        let pair = |path: &PathBuf| with.watched_file(path, PAIR_MAX);
        let client_pair = self.client_pair.as_ref().map(|paths| paths.map(pair));
        let login = LoginFiles {
            watched: &|path, most| with.watched_file(path, most),
            private: &|path| Arc::new(OwnerOnlyFile::new(path.to_owned())),
            identity: &|agent| Arc::new(WorkloadApi::new(agent.clone())),
            unwraps: with.serves,
        };
        let tls = TlsFiles { authorities, client_pair };
        let keeper = VaultKeeper::new(self.clone(), &login, tls, &with.clock, &with.telemetry)?;
        Ok(Arc::new(keeper))
    }
}
