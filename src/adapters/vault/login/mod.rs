//! Logging in to the keeper: one port, and one adapter for each method.

pub mod approle;
pub mod cert;
pub mod credential_file;
pub mod credential_text;
pub mod jwt;
pub mod method;
pub mod port;
pub mod spiffe;
pub mod token_file;

pub mod jwt_claims;
mod requests;
mod wrapping;

use std::{
    fmt,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use tokio_util::task::TaskTracker;

use self::{
    credential_file::LoginFiles,
    method::MethodSettings,
    port::{LoginMethod, Tokens},
    requests::Requests,
};
use super::{
    client::VaultClient,
    key_path::{MountPath, Namespace},
};
use crate::ports::clock::Clock;

/// The settings of the login.
#[derive(Clone, Debug)]
pub struct LoginSettings {
    /// The auth method's mount (`--auth-mount`). A token in a file needs none.
    pub mount: MountPath,
    /// The mount's namespace (`--vault-auth-namespace`).
    pub namespace: Namespace,
    /// The longest time for a login, a renewal or an unwrap (`--login-timeout`).
    pub timeout: Duration,
    /// The method (`--auth-method`) and its own settings.
    pub method: MethodSettings,
    /// The given flags of other methods. They have no effect.
    pub ignored: Vec<&'static str>,
}

/// A login with its settings, and the requests that keep its token.
#[derive(Clone, Debug)]
pub struct Login {
    /// Names where the token comes from, for observers.
    pub place: String,
    /// Logs in.
    pub method: Arc<dyn LoginMethod>,
    /// Renews and revokes the token.
    pub tokens: Arc<dyn Tokens>,
}

impl LoginSettings {
    /// Creates the login. Reads no file and sends no request.
    #[must_use]
    pub fn open(
        &self,
        client: Arc<VaultClient>,
        clock: Arc<dyn Clock>,
        files: &LoginFiles<'_>,
    ) -> Login {
        let requests = Arc::new(Requests {
            method: self.method.method(),
            client,
            clock,
            mount: self.mount.clone(),
            namespace: self.namespace.clone(),
            timeout: self.timeout,
            unwraps: files.unwraps,
            granted: AtomicU64::default(),
            refused_late: Mutex::default(),
            running: TaskTracker::new(),
        });
        let method = self.method.open(Arc::clone(&requests), files);
        Login { place: self.to_string(), method, tokens: requests }
    }
}

/// Names where the token comes from: the auth mount, or the file.
impl fmt::Display for LoginSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.method {
            MethodSettings::TokenFile(settings) => write!(f, "{}", settings.path.display()),
            method => write!(f, "auth/{} ({})", self.mount, method.method().as_str()),
        }
    }
}
