//! Logs in with AppRole: a role ID and a secret ID, which are read again for each login.

pub mod cache_text;
pub mod credential_text;
mod requests;
pub mod secret_id;
mod wrapping;

use std::{
    fmt,
    future::pending,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::select_all;

use self::{
    requests::Requests,
    secret_id::{FileCredential, SecretIds},
    wrapping::Unwrapper,
};
use super::{
    client::{VaultClient, json},
    credentials::{CredentialDigest, Credentials, Lease, LoginFailure, LoginSecret, Material},
    key_path::{MountPath, Namespace},
    wire::LoginBody,
};
use crate::{
    domain::{
        error::{Code, KmsError},
        secret::Secret,
    },
    ports::{
        clock::Clock,
        file::{PrivateFile, TextFile},
    },
};

/// The settings of the login.
#[derive(Clone, Debug)]
pub struct AppRoleSettings {
    /// The auth method's mount (`--auth-mount`).
    pub mount: MountPath,
    /// The mount's namespace (`--vault-auth-namespace`).
    pub namespace: Namespace,
    /// The role ID. It is not secret.
    pub role_id: RoleId,
    /// The file with the secret ID, or with the token that wraps it. `None` if the role needs no
    /// secret ID (`bind_secret_id=false`).
    pub secret_id_path: Option<PathBuf>,
    /// Whether the file holds a wrapping token (`--approle-secret-id-wrapped`).
    pub secret_id_wrapped: bool,
    /// The file that keeps the unwrapped secret ID over restarts (`--approle-secret-id-cache`).
    pub secret_id_cache: Option<PathBuf>,
    /// The longest time for a login, a renewal or an unwrap (`--login-timeout`).
    pub login_timeout: Duration,
}

/// The source of the role ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleId {
    /// The configuration holds the role ID.
    Given(String),
    /// This file holds the role ID.
    File(PathBuf),
}

/// The opened files of [`AppRoleSettings`].
#[derive(Debug)]
pub struct AppRoleFiles {
    /// The file of the role ID, if it is in a file.
    pub role_id: Option<Arc<dyn TextFile>>,
    /// The file of the secret ID or of its wrapping token, if there is one.
    pub secret_id: Option<Arc<dyn TextFile>>,
    /// The file that keeps the unwrapped secret ID, if there is one.
    pub cache: Option<Arc<dyn PrivateFile>>,
}

impl AppRoleSettings {
    /// Opens the files: those that operators write with `watched`, and the cache with `own`.
    pub fn files(
        &self,
        watched: impl Fn(&Path) -> Arc<dyn TextFile>,
        own: impl Fn(&Path) -> Arc<dyn PrivateFile>,
    ) -> AppRoleFiles {
        AppRoleFiles {
            role_id: match &self.role_id {
                RoleId::File(path) => Some(watched(path)),
                RoleId::Given(_) => None,
            },
            secret_id: self.secret_id_path.as_deref().map(watched),
            cache: self.secret_id_cache.as_deref().map(own),
        }
    }
}

/// Logs in with AppRole.
pub struct AppRole {
    requests: Arc<Requests>,
    settings: AppRoleSettings,
    role_id_file: Option<FileCredential>,
    /// `None` if the role needs no secret ID.
    secret_ids: Option<SecretIds>,
}

impl AppRole {
    /// Creates the login. Reads no file and sends no request.
    #[must_use]
    pub fn new(
        client: Arc<VaultClient>,
        clock: Arc<dyn Clock>,
        settings: AppRoleSettings,
        files: AppRoleFiles,
    ) -> Self {
        let requests = Arc::new(Requests {
            client,
            clock,
            mount: settings.mount.clone(),
            namespace: settings.namespace.clone(),
            timeout: settings.login_timeout,
            refused_late: Mutex::default(),
        });
        let unwrapper = settings.secret_id_wrapped.then(|| Unwrapper::new(Arc::clone(&requests)));
        Self {
            requests,
            role_id_file: files
                .role_id
                .map(|file| FileCredential::new(file, "approle-role-id-path", "role ID")),
            secret_ids: files.secret_id.map(|file| SecretIds::new(file, unwrapper, files.cache)),
            settings,
        }
    }

    async fn role_id(&self) -> Result<Secret, KmsError> {
        match (&self.settings.role_id, &self.role_id_file) {
            (RoleId::Given(role_id), _) => Ok(Secret::new(role_id.clone())),
            (RoleId::File(_), Some(file)) => file.read().await,
            (RoleId::File(path), None) => Err(KmsError::new(
                Code::Internal,
                format!("the file {} was not opened", path.display()),
                "report this",
            )),
        }
    }

    async fn login_secrets(&self) -> Result<Vec<(CredentialDigest, LoginSecret)>, KmsError> {
        match &self.secret_ids {
            Some(secret_ids) => secret_ids.login_secrets().await,
            None => Ok(vec![(CredentialDigest::NONE, LoginSecret::NotNeeded)]),
        }
    }

    /// Returns the watched files.
    fn files(&self) -> impl Iterator<Item = &FileCredential> {
        self.role_id_file.iter().chain(self.secret_ids.iter().map(|secret_ids| &secret_ids.file))
    }

    /// Returns the secret ID of `secret`, and unwraps it if needed. Returns `None` if the role
    /// needs none.
    async fn secret_id(&self, secret: &LoginSecret) -> Result<Option<Secret>, LoginFailure> {
        match (secret, &self.secret_ids) {
            (LoginSecret::SecretId(secret_id), _) => Ok(Some(secret_id.clone())),
            (LoginSecret::WrappingToken(token), Some(secret_ids)) => {
                secret_ids.unwrap(token).await.map(Some)
            }
            (LoginSecret::NotNeeded, _) | (LoginSecret::WrappingToken(_), None) => Ok(None),
        }
    }
}

#[async_trait]
impl Credentials for AppRole {
    fn keeper(&self) -> String {
        self.requests.keeper()
    }

    async fn materials(&self) -> Result<Vec<Material>, KmsError> {
        // Reads both files before returning an error of either, because `changed` compares with the
        // last read.
        let (role_id, login_secrets) = (self.role_id().await, self.login_secrets().await);
        let (role_id, login_secrets) = (role_id?, login_secrets?);
        let material = |(of, secret): (CredentialDigest, LoginSecret)| Material {
            digest: of.with(role_id.expose()),
            role_id: role_id.clone(),
            secret,
        };
        Ok(login_secrets.into_iter().map(material).collect())
    }

    async fn login(&self, material: &Material) -> Result<Lease, LoginFailure> {
        let secret_id = self.secret_id(&material.secret).await?;
        let secret_id = secret_id.as_ref().map(Secret::expose);
        let body = json(&LoginBody { role_id: material.role_id.expose(), secret_id });
        let body = body.map_err(LoginFailure::Failed)?;
        let outcome = self.requests.log_in(material.digest, body).await;
        match &material.secret {
            LoginSecret::NotNeeded => outcome.map_err(without_secret_id),
            LoginSecret::SecretId(_) | LoginSecret::WrappingToken(_) => outcome,
        }
    }

    async fn renew(&self, token: &Secret) -> Result<Lease, KmsError> {
        self.requests.renew(token).await
    }

    async fn changed(&self) {
        loop {
            for file in self.files() {
                if file.differs().await {
                    return;
                }
            }
            let changes: Vec<_> = self.files().map(|file| Box::pin(file.changed())).collect();
            if changes.is_empty() {
                return pending().await;
            }
            select_all(changes).await;
        }
    }

    async fn revoke(&self, token: &Secret) -> Result<(), KmsError> {
        self.requests.revoke(token).await
    }
}

impl fmt::Debug for AppRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppRole").field("mount", &self.settings.mount).finish_non_exhaustive()
    }
}

/// Adds to a refused login without a secret ID that the flag for the secret ID may be missing.
fn without_secret_id(failure: LoginFailure) -> LoginFailure {
    let name = |error: KmsError| match error.code() {
        Code::LoginRefused => KmsError::new(
            Code::LoginRefused,
            format!("{}; no secret ID was sent", error.cause()),
            "give --approle-secret-id-path, or set bind_secret_id=false on the role and check --approle-role-id",
        ),
        _ => error,
    };
    match failure {
        LoginFailure::Refused(error) => LoginFailure::Refused(name(error)),
        LoginFailure::Failed(error) => LoginFailure::Failed(name(error)),
    }
}
