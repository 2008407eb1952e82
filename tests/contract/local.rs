//! The embedded keeper.

use std::{fs, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use serde_json::Value;
use vault_kube_kms::{
    adapters::{
        local::{file::KeyFile, keeper::LocalKek},
        system::clock::SystemClock,
    },
    domain::key::KekVersion,
    ports::{clock::Clock, kek::Kek},
    testkit::{Hook, Subject},
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

    async fn outage(&self, _away: bool) -> Hook {
        Hook::DoesNotApply("the keeper is in this process")
    }

    async fn retire(&self, version: KekVersion) -> Hook {
        let mut file: Value = serde_json::from_slice(&fs::read(&self.path).unwrap()).unwrap();
        let versions = file["versions"].as_array_mut().unwrap();
        versions.retain(|entry| entry["version"].as_u64() > Some(version.get().into()));
        fs::write(&self.path, file.to_string()).unwrap();
        Hook::Done
    }

    async fn replace(&self) -> Hook {
        fs::remove_file(&self.path).unwrap();
        KeyFile::create(&self.path, self.clock.wall()).unwrap();
        Hook::Done
    }

    async fn hang(&self, _hangs: bool) -> Hook {
        Hook::DoesNotApply("only a disk can hang, and the layers end a call that waits for it")
    }
}

vault_kube_kms::kek_contract!(Local::new());
