//! Outbound port: the identity of this process, as an agent on the node gives it.

use std::{fmt::Debug, path::PathBuf, sync::Arc};

use async_trait::async_trait;

use crate::domain::{
    error::KmsError,
    secret::{Plaintext, Secret},
};

/// The agent that gives an identity, and the wanted identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSettings {
    /// The socket of the agent (`--spiffe-socket`).
    pub socket: PathBuf,
    /// The wanted identity (`--spiffe-id`). `None` means the first identity that the agent sends.
    pub id: Option<String>,
}

/// A certificate of this process and its private key (an X.509-SVID of SPIFFE).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityCertificate {
    /// The identity, such as `spiffe://example.org/kms`.
    pub id: String,
    /// The certificates in DER. The certificate of this process is the first, and the authorities
    /// between it and the root follow.
    pub chain: Vec<Vec<u8>>,
    /// The private key as PKCS#8 in DER.
    pub key: Plaintext,
}

/// The identity of this process, which an agent proves by short-lived credentials.
///
/// Each error has the code `credential-unreadable`. It names the agent, the cause and a remedy.
#[async_trait]
pub trait WorkloadIdentity: Debug + Send + Sync + 'static {
    /// Returns where the agent listens, for errors and logs.
    fn place(&self) -> String;

    /// Returns a JWT for `audience`. Asks the agent at each call, in bounded time. Safe to cancel.
    ///
    /// # Errors
    /// When the agent cannot be reached, gives no identity to this process or does not answer in
    /// time.
    async fn jwt(&self, audience: &str) -> Result<Secret, KmsError>;

    /// Returns the newest certificate. [`WorkloadIdentity::follow`] receives it. Before the first
    /// answer of the agent this waits for it, in bounded time. Safe to cancel. A certificate stays
    /// until the agent sends the next one, also when it has expired.
    ///
    /// # Errors
    /// When no certificate has arrived since the start: the last problem with the agent.
    async fn certificate(&self) -> Result<Arc<IdentityCertificate>, KmsError>;

    /// Waits until [`WorkloadIdentity::certificate`] returns another certificate than `known`, and
    /// returns it. Safe to cancel.
    async fn next_certificate<'a>(
        &self,
        known: Option<&'a IdentityCertificate>,
    ) -> Arc<IdentityCertificate>;

    /// Receives certificates from the agent until this future is dropped. Never returns. After a
    /// failure it connects again by itself. Run it once.
    async fn follow(&self);
}
