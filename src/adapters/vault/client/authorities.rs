//! Loads the certificate authorities again when their file changes.

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
    /// Loads each new bundle in `file` and keeps the last valid one. Never returns. Without any
    /// valid bundle, no server is trusted. Running requests finish on their connections. All later
    /// requests use new connections, which are verified with the new bundle. Safe to cancel.
    pub async fn follow_authorities(&self, file: Arc<dyn TextFile>) {
        if let Trust::BundleUnavailable(why) = &self.settings.tls.trust {
            tracing::warn!("{why}; no server is trusted until the file can be read");
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
                    tracing::info!(
                        "--tls-ca-file: the new authorities in {place} are used from now on"
                    );
                    for warning in warnings {
                        tracing::warn!("--tls-ca-file: {place}: {warning}");
                    }
                }
                Err(problem) => self.keep_authorities(&format!("--tls-ca-file: {place} {problem}")),
            }
        }
    }

    /// Uses the bundle `bytes` from now on and returns its warnings. Returns `None` if it is the
    /// bundle in use.
    fn trust(&self, bytes: &[u8]) -> Result<Option<Vec<String>>, String> {
        if self.bundle.lock().unwrap_or_else(PoisonError::into_inner).as_deref() == Some(bytes) {
            return Ok(None);
        }
        let Bundle { warnings, first_end, .. } = bundle::read(bytes)?;
        self.connect_with(Trust::Bundle(bytes.to_vec()))?;
        *self.bundle.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes.to_vec());
        self.expires(vocabulary::AUTHORITIES, first_end);
        Ok(Some(warnings))
    }

    /// Logs why the new authorities cannot be used, and keeps the previous ones. Without previous
    /// ones, `problem` becomes the cause of each failed connection.
    fn keep_authorities(&self, problem: &str) {
        if self.bundle.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            tracing::warn!("{problem}; the previous authorities are still used");
            return;
        }
        tracing::warn!("{problem}; no server is trusted until the file can be used");
        if let Err(problem) = self.connect_with(Trust::BundleUnavailable(problem.to_owned())) {
            tracing::warn!("--tls-ca-file: {problem}");
        }
    }

    /// Verifies the servers of all new connections with `trust`.
    fn connect_with(&self, trust: Trust) -> Result<(), String> {
        let mut settings = self.settings.clone();
        settings.tls.trust = trust;
        let network: Arc<dyn Dial> =
            Arc::new(Network::new(&settings, Arc::clone(&self.certificates))?);
        self.connections.set_dial(&network);
        Ok(())
    }
}
