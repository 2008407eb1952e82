//! Logs in with the client certificate of the connection.

use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{
    port::{CredentialDigest, Lease, LoginFailure, LoginMethod, LoginSecret, Material},
    requests::Requests,
};
use crate::{
    adapters::vault::{servers::json, wire::CertBody},
    domain::{error::KmsError, secret::Secret},
};

/// The settings of `--auth-method=cert`. The certificate is a setting of the connections.
#[derive(Clone, Debug)]
pub struct CertSettings {
    /// The role (`--cert-role`). If empty, the server selects the role by the certificate.
    pub role: String,
}

/// Logs in with the client certificate of the connection.
#[derive(Debug)]
pub struct Cert {
    requests: Arc<Requests>,
    role: Secret,
    /// The SHA-256 of the certificate that new connections present.
    presents: watch::Receiver<Option<[u8; 32]>>,
    /// The value at the last read.
    read: Mutex<Option<[u8; 32]>>,
}

impl Cert {
    /// Creates the login. Sends no request.
    pub(super) fn new(requests: Arc<Requests>, settings: &CertSettings) -> Self {
        let presents = requests.client.servers().presents();
        let role = Secret::new(settings.role.clone());
        Self { requests, role, presents, read: Mutex::new(None) }
    }

    fn last_read(&self) -> MutexGuard<'_, Option<[u8; 32]>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl LoginMethod for Cert {
    async fn materials(&self) -> Result<Vec<Material>, KmsError> {
        let presented = *self.presents.borrow();
        *self.last_read() = presented;
        let digest =
            presented.map_or(CredentialDigest::NONE, |bytes| CredentialDigest::of_bytes(&bytes));
        Ok(vec![Material { digest, role: self.role.clone(), secret: LoginSecret::NotNeeded }])
    }

    async fn login(&self, material: &Material) -> Result<Lease, LoginFailure> {
        let body = json(&CertBody { name: material.role.expose() });
        let body = body.map_err(LoginFailure::Failed)?;
        let lease = self.requests.log_in(material.digest, body).await?;
        // The server renews the token only on a connection with the same certificate.
        Ok(Lease { ends_with_credential: true, ..lease })
    }

    async fn changed(&self) {
        let last = *self.last_read();
        let mut presents = self.presents.clone();
        if presents.wait_for(|now| *now != last).await.is_err() {
            pending::<()>().await;
        }
    }
}
