//! Logs in with the identity that a SPIFFE agent gives to this process: with a JWT-SVID at a mount of
//! the method `jwt`, or with an X.509-SVID at a mount of the method `cert`.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{
    cert::{Cert, CertSettings},
    jwt,
    port::{CredentialDigest, Lease, LoginFailure, LoginMethod, LoginSecret, Material},
    requests::Requests,
};
use crate::{
    adapters::vault::client_pair::ClientPair,
    domain::{
        error::{Code, KmsError},
        secret::Secret,
        time::UnixTime,
    },
    ports::workload_identity::{AgentSettings, IdentityCertificate, WorkloadIdentity},
};

/// The wait before an agent that gave no JWT is asked again. It doubles up to the last one.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LAST_WAIT: Duration = Duration::from_secs(5);

/// The settings of `--auth-method=spiffe`.
#[derive(Clone, Debug)]
pub struct SpiffeLoginSettings {
    /// The agent, and the wanted identity.
    pub agent: AgentSettings,
    /// The role (`--spiffe-role`). If empty, the server uses the default role of the mount.
    pub role: String,
    /// The credential (`--spiffe-svid`).
    pub svid: Svid,
}

/// The form of the credential that proves the identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Svid {
    /// A JWT-SVID for this audience (`--spiffe-audience`).
    Jwt(String),
    /// An X.509-SVID, which each connection presents.
    X509,
}

/// Logs in with a JWT-SVID, which is fetched before each login.
#[derive(Debug)]
pub struct SpiffeJwt {
    requests: Arc<Requests>,
    identity: Arc<dyn WorkloadIdentity>,
    role: Secret,
    audience: String,
    digest: CredentialDigest,
    /// Whether the agent gave no JWT the last time.
    is_missing: AtomicBool,
}

impl SpiffeJwt {
    /// Creates the login. Connects to nothing.
    pub(super) fn new(
        requests: Arc<Requests>,
        settings: &SpiffeLoginSettings,
        audience: &str,
        identity: Arc<dyn WorkloadIdentity>,
    ) -> Self {
        // The agent may give another JWT at each call. The plan must not take each of them for new
        // material, or a login that fails would be repeated without a wait.
        let digest = CredentialDigest::of(&Secret::new(audience.to_owned()));
        Self {
            requests,
            identity,
            role: Secret::new(settings.role.clone()),
            audience: audience.to_owned(),
            digest,
            is_missing: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl LoginMethod for SpiffeJwt {
    async fn materials(&self) -> Result<Vec<Material>, KmsError> {
        let jwt = self.identity.jwt(&self.audience).await;
        self.is_missing.store(jwt.is_err(), Ordering::Relaxed);
        let (digest, role) = (self.digest, self.role.clone());
        Ok(vec![Material { digest, role, secret: LoginSecret::Plain(jwt?) }])
    }

    async fn login(&self, material: &Material) -> Result<Lease, LoginFailure> {
        jwt::log_in(&self.requests, material).await
    }

    /// Resolves when the agent gives a JWT again. A new JWT alone changes nothing, because each
    /// login fetches one.
    async fn changed(&self) {
        if !self.is_missing.load(Ordering::Relaxed) {
            return pending().await;
        }
        let mut wait = FIRST_WAIT;
        loop {
            self.requests.clock.sleep(wait).await;
            if self.identity.jwt(&self.audience).await.is_ok() {
                return;
            }
            wait = wait.saturating_mul(2).min(LAST_WAIT);
        }
    }
}

/// The name of the certificate in messages.
const X509_SVID: &str = "the X.509-SVID of the SPIFFE agent";

/// Logs in with an X.509-SVID. [`LoginMethod::run`] receives each new one and presents it on all new
/// connections.
#[derive(Debug)]
pub struct SpiffeX509 {
    requests: Arc<Requests>,
    identity: Arc<dyn WorkloadIdentity>,
    cert: Cert,
}

impl SpiffeX509 {
    /// Creates the login. Connects to nothing.
    pub(super) fn new(
        requests: Arc<Requests>,
        settings: &SpiffeLoginSettings,
        identity: Arc<dyn WorkloadIdentity>,
    ) -> Self {
        let cert = Cert::new(Arc::clone(&requests), &CertSettings { role: settings.role.clone() });
        Self { requests, identity, cert }
    }

    async fn present_each(&self) {
        let mut known = None;
        loop {
            let next = self.identity.next_certificate(known.as_deref()).await;
            if let Err(why) = self.present(&next) {
                tracing::warn!("{X509_SVID} cannot be used: {why}; the previous one is still used");
            }
            known = Some(next);
        }
    }

    /// Presents the certificate on all new connections. Returns when it expires, if that is known.
    fn present(&self, certificate: &IdentityCertificate) -> Result<Option<UnixTime>, String> {
        let chain = certificate.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let key = PrivateKeyDer::Pkcs8(certificate.key.expose().into());
        let pair = ClientPair::new(chain, &key, X509_SVID)?;
        let end = pair.end();
        self.requests.client.servers().present(pair).map(|_is_new| end)
    }
}

#[async_trait]
impl LoginMethod for SpiffeX509 {
    async fn materials(&self) -> Result<Vec<Material>, KmsError> {
        let certificate = self.identity.certificate().await;
        // `run` may not have presented the first certificate yet. It reports a failure.
        let presented = certificate.as_ref().map(|certificate| self.present(certificate));
        // What is presented now is no change that ends the wait for the next attempt, whatever is
        // wrong with it.
        let materials = self.cert.materials().await;
        if let Ok(Ok(Some(end))) = presented {
            let late = self.requests.clock.wall().since(end).as_secs();
            if late > 0 {
                return Err(KmsError::new(
                    Code::CredentialUnreadable,
                    format!("{X509_SVID} expired {late} s ago, and the agent sends no new one"),
                    "see the agent's log; check that it runs and that the registration entry exists",
                ));
            }
        }
        // Without a certificate the agent's problem is the cause, and not the connection's.
        certificate.and(materials)
    }

    /// The lease cannot be renewed: the server renews a token only over a connection with the
    /// certificate of its login, and the agent replaces the certificate often. The session logs in
    /// again in time instead.
    async fn login(&self, material: &Material) -> Result<Lease, LoginFailure> {
        self.cert.login(material).await.map(|lease| Lease { renewable: false, ..lease })
    }

    async fn changed(&self) {
        self.cert.changed().await;
    }

    async fn run(&self) {
        tokio::join!(self.identity.follow(), self.present_each());
    }
}

#[cfg(test)]
#[path = "spiffe_tests.rs"]
mod tests;
