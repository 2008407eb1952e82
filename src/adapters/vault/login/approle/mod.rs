//! Logs in with AppRole: a role ID and a secret ID, which are read again for each login.

pub mod cache_text;
mod secret_id;
mod wrapped;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;

use self::secret_id::SecretIds;
use super::{
    credential_file::{CredentialFile, CredentialForm, CredentialPath, LoginFiles, any_changed},
    port::{CredentialDigest, Lease, LoginFailure, LoginMethod, LoginSecret, Material},
    requests::Requests,
    wrapping::Unwrapper,
};
use crate::{
    adapters::vault::{servers::json, wire::AppRoleBody},
    domain::{
        error::{Code, KmsError},
        secret::Secret,
    },
};

/// The settings of `--auth-method=approle`.
#[derive(Clone, Debug)]
pub struct AppRoleSettings {
    /// The role ID. It is not secret.
    pub role_id: RoleId,
    /// The file with the secret ID, or with the token that wraps it. `None` if the role needs no
    /// secret ID (`bind_secret_id=false`).
    pub secret_id_path: Option<PathBuf>,
    /// Whether the file holds a wrapping token (`--approle-secret-id-wrapped`).
    pub secret_id_wrapped: bool,
    /// The file that keeps the unwrapped secret ID over restarts (`--approle-secret-id-cache`).
    pub secret_id_cache: Option<PathBuf>,
}

/// The source of the role ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleId {
    /// The configuration holds the role ID.
    Given(String),
    /// This file holds the role ID.
    File(PathBuf),
}

impl AppRoleSettings {
    /// Returns the files that are read: the one of the role ID, and the one of the secret ID.
    pub(super) fn files(&self) -> Vec<CredentialPath> {
        let role_id = match &self.role_id {
            RoleId::Given(_) => None,
            RoleId::File(path) => Some(role_id_file(path)),
        };
        role_id.into_iter().chain(self.secret_id_file()).collect()
    }

    /// Returns the file of the secret ID or of its wrapping token, if there is one.
    fn secret_id_file(&self) -> Option<CredentialPath> {
        Some(CredentialPath {
            flag: "approle-secret-id-path",
            what: if self.secret_id_wrapped { "wrapping token" } else { "secret ID" },
            path: self.secret_id_path.clone()?,
            is_secret: true,
            form: CredentialForm::Text(""),
        })
    }
}

fn role_id_file(path: &Path) -> CredentialPath {
    CredentialPath {
        flag: "approle-role-id-path",
        what: "role ID",
        path: path.to_owned(),
        is_secret: false,
        form: CredentialForm::Text(""),
    }
}

/// Logs in with AppRole.
#[derive(Debug)]
pub struct AppRole {
    requests: Arc<Requests>,
    role_id: RoleIdSource,
    /// `None` if the role needs no secret ID.
    secret_ids: Option<Arc<SecretIds>>,
}

#[derive(Debug)]
enum RoleIdSource {
    Given(Secret),
    File(CredentialFile),
}

impl AppRole {
    /// Creates the login. Reads no file and sends no request.
    pub(super) fn new(
        requests: Arc<Requests>,
        settings: &AppRoleSettings,
        files: &LoginFiles<'_>,
    ) -> Self {
        let role_id = match &settings.role_id {
            RoleId::Given(role_id) => RoleIdSource::Given(Secret::new(role_id.clone())),
            RoleId::File(path) => {
                RoleIdSource::File(CredentialFile::open(role_id_file(path), files))
            }
        };
        let unwrapper = settings
            .secret_id_wrapped
            .then(|| Unwrapper::new(Arc::clone(&requests), &wrapped::SECRET_ID));
        let cache = settings.secret_id_cache.as_deref().map(files.private);
        let secret_ids = settings
            .secret_id_file()
            .map(|file| SecretIds::new(CredentialFile::open(file, files), unwrapper, cache));
        let secret_ids = secret_ids.map(Arc::new);
        Self { requests, role_id, secret_ids }
    }

    async fn role_id(&self) -> Result<Secret, KmsError> {
        match &self.role_id {
            RoleIdSource::Given(role_id) => Ok(role_id.clone()),
            RoleIdSource::File(file) => file.read().await,
        }
    }

    async fn login_secrets(&self) -> Result<Vec<(CredentialDigest, LoginSecret)>, KmsError> {
        match &self.secret_ids {
            Some(secret_ids) => secret_ids.login_secrets().await,
            None => Ok(vec![(CredentialDigest::NONE, LoginSecret::NotNeeded)]),
        }
    }

    /// Returns the secret ID of `secret`, and unwraps it if needed. Returns `None` if the role
    /// needs none.
    async fn secret_id(&self, secret: &LoginSecret) -> Result<Option<Secret>, LoginFailure> {
        match (secret, &self.secret_ids) {
            (LoginSecret::Plain(secret_id), _) => Ok(Some(secret_id.clone())),
            (LoginSecret::Wrapped(token), Some(secret_ids)) => {
                secret_ids.unwrap(token).await.map(Some)
            }
            (LoginSecret::NotNeeded, _) | (LoginSecret::Wrapped(_), None) => Ok(None),
        }
    }
}

#[async_trait]
impl LoginMethod for AppRole {
    async fn materials(&self) -> Result<Vec<Material>, KmsError> {
        // Reads both files before returning an error of either, because `changed` compares with the
        // last read.
        let (role_id, login_secrets) = (self.role_id().await, self.login_secrets().await);
        let (role_id, login_secrets) = (role_id?, login_secrets?);
        let material = |(of, secret): (CredentialDigest, LoginSecret)| Material {
            digest: of.with(role_id.expose()),
            role: role_id.clone(),
            secret,
        };
        Ok(login_secrets.into_iter().map(material).collect())
    }

    async fn login(&self, material: &Material) -> Result<Lease, LoginFailure> {
        let secret_id = self.secret_id(&material.secret).await?;
        let secret_id = secret_id.as_ref().map(Secret::expose);
        let body = json(&AppRoleBody { role_id: material.role.expose(), secret_id });
        let body = body.map_err(LoginFailure::Failed)?;
        let outcome = self.requests.log_in(material.digest, body).await;
        match &material.secret {
            LoginSecret::NotNeeded => outcome.map_err(|failure| failure.map(without_secret_id)),
            LoginSecret::Plain(_) | LoginSecret::Wrapped(_) => outcome,
        }
    }

    async fn changed(&self) {
        let role_id = match &self.role_id {
            RoleIdSource::Given(_) => None,
            RoleIdSource::File(file) => Some(file),
        };
        let secret_id = self.secret_ids.as_ref().map(|secret_ids| &secret_ids.file);
        let files: Vec<_> = role_id.into_iter().chain(secret_id).collect();
        any_changed(&files).await;
    }
}

/// Adds to a refused login without a secret ID that the flag for the secret ID may be missing.
fn without_secret_id(error: KmsError) -> KmsError {
    match error.code() {
        Code::LoginRefused => KmsError::new(
            Code::LoginRefused,
            format!("{}; no secret ID was sent", error.cause()),
            "give --approle-secret-id-path, or set bind_secret_id=false on the role and check --approle-role-id",
        ),
        _ => error,
    }
}
