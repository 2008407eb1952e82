//! Logs in with the client certificate of the connection.

use std::{future::pending, sync::Arc};

use async_trait::async_trait;

use super::{
    port::{CredentialDigest, Lease, LoginFailure, LoginMethod, LoginSecret, Material},
    requests::Requests,
};
use crate::{
    adapters::vault::{client::json, wire::CertBody},
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
}

impl Cert {
    /// Creates the login. Sends no request.
    pub(super) fn new(requests: Arc<Requests>, settings: &CertSettings) -> Self {
        Self { requests, role: Secret::new(settings.role.clone()) }
    }
}

#[async_trait]
impl LoginMethod for Cert {
    async fn materials(&self) -> Result<Vec<Material>, KmsError> {
        let (digest, role) = (CredentialDigest::NONE, self.role.clone());
        Ok(vec![Material { digest, role, secret: LoginSecret::NotNeeded }])
    }

    async fn login(&self, material: &Material) -> Result<Lease, LoginFailure> {
        let body = json(&CertBody { name: material.role.expose() });
        self.requests.log_in(material.digest, body.map_err(LoginFailure::Failed)?).await
    }

    async fn changed(&self) {
        pending::<()>().await;
    }
}
