//! The embedded keeper.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use vault_kube_kms::{
    adapters::{
        local::{file::KeyFile, keeper::LocalKek},
        system::clock::SystemClock,
    },
    ports::{clock::Clock, kek::Kek},
    testkit::Subject,
};

struct Local {
    kek: Arc<LocalKek>,
    clock: Arc<SystemClock>,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Local {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (path, clock) = (directory.path().join("key.json"), Arc::new(SystemClock::new()));
        KeyFile::create(&path, clock.wall()).unwrap();
        let kek = Arc::new(LocalKek::open(path.clone()).unwrap());
        Self { kek, clock, path, _directory: directory }
    }
}

#[async_trait]
impl Subject for Local {
    fn kek(&self) -> Arc<dyn Kek> {
        self.kek.clone()
    }

    async fn rotate(&self) {
        KeyFile::rotate(&self.path, self.clock.wall()).unwrap();
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }
}

vault_kube_kms::kek_contract!(Local::new());
