//! Vault or OpenBao: a key of its Transit engine.

mod files;
mod flags;
mod reading;
mod warnings;

use std::{error::Error, path::Path, sync::Arc};

use async_trait::async_trait;
use tokio::sync::watch;

pub(in crate::config) use self::reading::read;
use super::{KeeperKind, KeeperSettings, Surroundings};
use crate::{
    adapters::{
        system::{
            private_file::OwnerOnlyFile, reread::Reread, sandbox::Needs, watched_file::WatchedFile,
        },
        vault::{
            approle::{AppRoleFiles, RoleId, secret_id::CREDENTIAL_MAX},
            bundle::BUNDLE_MAX,
            keeper::{VaultFiles, VaultKeeper},
            settings::VaultSettings,
            vocabulary,
        },
    },
    config::{flags::Group, reading::Reading},
    ports::{
        file::TextFile,
        finding::{Finding, Report},
        keeper::{Keeper, Labels},
    },
};

/// `--keeper=vault`, the default.
#[derive(Clone, Copy, Debug)]
pub struct Vault;

impl KeeperKind for Vault {
    fn name(&self) -> &'static str {
        "vault"
    }

    fn flags(&self) -> &'static [Group] {
        flags::GROUPS
    }

    fn read(&self, reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperSettings>> {
        read(reading).map(|settings| -> Arc<dyn KeeperSettings> { Arc::new(settings) })
    }

    fn policy(&self, reading: &mut Reading<'_>) -> Option<String> {
        reading::policy(reading)
    }
}

#[async_trait]
impl KeeperSettings for VaultSettings {
    fn connection(&self) -> String {
        self.client.connection()
    }

    fn labels(&self) -> Labels {
        vocabulary::labels()
    }

    fn warnings(&self) -> Vec<Finding> {
        warnings::of(self)
    }

    fn needs(&self, needs: &mut Needs) {
        for address in &self.client.addresses {
            needs.connect(address.host(), address.port());
        }
        if let RoleId::File(path) = &self.approle.role_id {
            needs.read.push(path.clone());
        }
        needs.read.extend(self.approle.secret_id_path.iter().chain(&self.ca_file).cloned());
        needs.written.extend(self.approle.secret_id_cache.clone());
    }

    async fn check_files(&self, report: &mut Report) {
        files::check(self, report).await;
    }

    fn open(&self, with: &Surroundings) -> Result<Arc<dyn Keeper>, Box<dyn Error + Send + Sync>> {
        let authorities =
            self.ca_file.as_deref().map(|path| watched(path, BUNDLE_MAX, &with.reread));
        let files = VaultFiles { approle: approle_files(self, &with.reread), authorities };
        Ok(Arc::new(VaultKeeper::new(self.clone(), files, &with.clock, &with.telemetry)?))
    }
}

/// Returns the files that a login reads.
fn approle_files(settings: &VaultSettings, reread: &watch::Receiver<()>) -> AppRoleFiles {
    settings.approle.files(
        |path| watched(path, CREDENTIAL_MAX, reread),
        |path| Arc::new(OwnerOnlyFile::new(path.to_owned())),
    )
}

/// Returns the file at `path`, of at most `most` bytes. It is read again when it changes and at
/// each change of `reread`.
fn watched(path: &Path, most: u64, reread: &watch::Receiver<()>) -> Arc<dyn TextFile> {
    let file = Arc::new(WatchedFile::new(path.to_owned(), most));
    Arc::new(Reread::new(file, reread.clone()))
}
