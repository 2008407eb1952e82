//! The file of a secret ID. An operator replaces it, and the plugin notices the change later.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::watch, time::sleep};
use vault_kube_kms::{domain::secret::Plaintext, ports::file::TextFile};

use super::chance::Chance;

/// The maximum time until the plugin notices a change.
const NOTICED_MS: u64 = 2_000;

pub struct CredentialFile {
    /// Its content, or nothing while it is missing, and the number of replacements.
    content: watch::Sender<(u64, Option<String>)>,
    read: AtomicU64,
    chance: Mutex<Chance>,
}

impl CredentialFile {
    pub fn new(text: String, seed: u64) -> Self {
        let content = watch::Sender::new((0, Some(text)));
        Self { content, read: AtomicU64::new(0), chance: Mutex::new(Chance::new(seed)) }
    }

    /// Replaces the file. `None` removes it.
    pub fn write(&self, text: Option<String>) {
        self.content.send_modify(|content| *content = (content.0 + 1, text));
    }
}

#[async_trait]
impl TextFile for CredentialFile {
    fn place(&self) -> String {
        "the model's secret ID file".to_owned()
    }

    async fn read(&self) -> Result<Plaintext, String> {
        let (version, text) = self.content.borrow().clone();
        self.read.store(version, Ordering::Relaxed);
        text.map(|text| Plaintext::new(text.into_bytes()))
            .ok_or_else(|| "does not exist".to_owned())
    }

    async fn changed(&self) {
        let mut news = self.content.subscribe();
        drop(news.wait_for(|(version, _)| *version != self.read.load(Ordering::Relaxed)).await);
        let wait = self.chance.lock().unwrap().below(NOTICED_MS);
        sleep(Duration::from_millis(wait)).await;
    }
}

impl fmt::Debug for CredentialFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialFile")
    }
}
