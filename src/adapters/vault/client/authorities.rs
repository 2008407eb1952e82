//! The certificate authorities, taken up anew when their file changes.

use std::sync::{Arc, PoisonError};

use super::{Dial, VaultClient, transport::Network};
use crate::{
    adapters::vault::{
        bundle::{self, Bundle},
        tls::Trust,
        vocabulary,
    },
    ports::file::TextFile,
};

impl VaultClient {
    /// Takes up each new bundle in `file`, for ever, and keeps the last good one. Where there was
    /// none yet, no server is trusted until there is. Requests that are out end on their
    /// connections; all others are on new ones, judged by the new bundle. Safe to cancel.
    pub async fn follow_authorities(&self, file: Arc<dyn TextFile>) {
        if let Trust::BundleUnavailable(why) = &self.settings.tls.trust {
            tracing::warn!("{why}; no server is trusted until it can be read");
        }
        loop {
            file.changed().await;
            let place = file.place();
            let followed = match file.read().await {
                Ok(bytes) => self.trust(bytes.expose()),
                Err(problem) => Err(problem),
            };
            match followed {
                Ok(None) => (),
                Ok(Some(warnings)) => {
                    tracing::info!("--tls-ca-file: the new authorities in {place} count");
                    for warning in warnings {
                        tracing::warn!("--tls-ca-file: {place}: {warning}");
                    }
                }
                Err(problem) => self.keep_authorities(&format!("--tls-ca-file: {place} {problem}")),
            }
        }
    }

    /// Has `bytes` count from now on, where they are another bundle than before, and gives its
    /// warnings.
    fn trust(&self, bytes: &[u8]) -> Result<Option<Vec<String>>, String> {
        if self.bundle.lock().unwrap_or_else(PoisonError::into_inner).as_deref() == Some(bytes) {
            return Ok(None);
        }
        let Bundle { warnings, first_end, .. } = bundle::read(bytes)?;
        self.judge_by(Trust::Bundle(bytes.to_vec()))?;
        *self.bundle.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes.to_vec());
        self.expires(vocabulary::AUTHORITIES, first_end);
        Ok(Some(warnings))
    }

    /// Tells why there are no new authorities. Where there were none before, it becomes the cause
    /// of each failed connection.
    fn keep_authorities(&self, problem: &str) {
        if self.bundle.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            tracing::warn!("{problem}; the former authorities count still");
            return;
        }
        tracing::warn!("{problem}; no server is trusted until it can be used");
        if let Err(problem) = self.judge_by(Trust::BundleUnavailable(problem.to_owned())) {
            tracing::warn!("--tls-ca-file: {problem}");
        }
    }

    /// Makes all new connections by `trust`.
    fn judge_by(&self, trust: Trust) -> Result<(), String> {
        let mut settings = self.settings.clone();
        settings.tls.trust = trust;
        let network: Arc<dyn Dial> =
            Arc::new(Network::new(&settings, Arc::clone(&self.certificates))?);
        self.connections.dial_by(&network);
        Ok(())
    }
}
