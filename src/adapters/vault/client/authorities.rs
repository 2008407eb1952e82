//! The certificate authorities, taken up anew when their file changes.

use std::sync::{Arc, PoisonError};

use super::{VaultClient, transport::Network};
use crate::{adapters::vault::tls::Trust, ports::file::TextFile};

/// The largest bundle of authorities, in bytes: the public ones take about 250 KiB.
pub const BUNDLE_MAX: u64 = 4 * 1_048_576;

impl VaultClient {
    /// Takes up each new bundle in `file`, for ever, and keeps the last good one. Requests
    /// that are out end on their connections; all others are on new ones, judged by the new bundle.
    /// Safe to cancel.
    pub async fn follow_authorities(&self, file: Arc<dyn TextFile>) {
        loop {
            file.changed().await;
            let problem = match file.read().await {
                Ok(bundle) => self.trust(bundle.expose()),
                Err(problem) => Err(problem),
            };
            let place = file.place();
            match problem {
                Ok(true) => tracing::info!("--tls-ca-file: the new authorities in {place} count"),
                Ok(false) => (),
                Err(problem) => tracing::warn!(
                    "--tls-ca-file: {place} {problem}; the former authorities count still"
                ),
            }
        }
    }

    /// Whether `bundle` is another one than before; it counts from now on.
    fn trust(&self, bundle: &[u8]) -> Result<bool, String> {
        let mut settings = self.settings.clone();
        settings.tls.trust = Trust::Bundle(bundle.to_vec());
        let network =
            Network::new(&settings).map_err(|problem| format!("cannot be used: {problem}"))?;
        let mut current = self.bundle.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_deref() == Some(bundle) {
            return Ok(false);
        }
        *current = Some(bundle.to_vec());
        *self.http.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(settings.http(Arc::new(network)));
        Ok(true)
    }
}
