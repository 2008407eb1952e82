//! AppRole: a role ID and a secret ID, read anew at each login. A secret ID that was refused is not
//! tried again for a while: five refusals lock a role for all nodes that share it.

pub mod credential_text;
mod refused_pairs;
pub mod secret_id;
mod wrapping;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use http::Method;

use self::{
    refused_pairs::RefusedPairs,
    secret_id::{FileCredential, Fingerprint, SecretIds, fingerprint},
    wrapping::Unwrapper,
};
use super::{
    client::{At, Call, Failure, Repeat, VaultClient, json, unreadable},
    key_path::{MountPath, Namespace},
    refusal::Asked,
    wire::{Auth, Authenticated, LoginBody},
};
use crate::{
    domain::{
        error::{Code, KmsError},
        secret::Secret,
    },
    ports::{
        clock::Clock,
        credentials::{Credentials, Lease},
        file::{PrivateFile, TextFile},
        telemetry::KeeperOperation,
    },
};

/// Who we are to Vault.
#[derive(Clone, Debug)]
pub struct AppRoleSettings {
    /// The auth method's mount (`--auth-mount`).
    pub mount: MountPath,
    /// The mount's namespace (`--vault-auth-namespace`).
    pub namespace: Namespace,
    /// Not secret.
    pub role_id: RoleId,
    /// The file that holds the secret ID, or the token that wraps it.
    pub secret_id_path: PathBuf,
    /// It holds the latter (`--approle-secret-id-wrapped`).
    pub secret_id_wrapped: bool,
    /// Keeps the unwrapped secret ID over restarts (`--approle-secret-id-cache`).
    pub secret_id_cache: Option<PathBuf>,
}

/// Where the role ID is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleId {
    /// In the configuration.
    Given(String),
    /// In this file.
    File(PathBuf),
}

/// The files of [`AppRoleSettings`], opened.
#[derive(Debug)]
pub struct AppRoleFiles {
    /// That of the role ID, if it is in one.
    pub role_id: Option<Arc<dyn TextFile>>,
    /// That of the secret ID.
    pub secret_id: Arc<dyn TextFile>,
    /// That which keeps what was unwrapped, if there is one.
    pub cache: Option<Arc<dyn PrivateFile>>,
}

impl AppRoleSettings {
    /// The files, as `watched` and `own` open them.
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
            secret_id: watched(&self.secret_id_path),
            cache: self.secret_id_cache.as_deref().map(own),
        }
    }
}

/// Logs in by AppRole.
pub struct AppRole {
    client: Arc<VaultClient>,
    settings: AppRoleSettings,
    role_id_file: Option<FileCredential>,
    secret_ids: SecretIds,
    refused: RefusedPairs,
}

impl AppRole {
    /// Credentials that were not used yet.
    #[must_use]
    pub fn new(
        client: Arc<VaultClient>,
        clock: Arc<dyn Clock>,
        settings: AppRoleSettings,
        files: AppRoleFiles,
    ) -> Self {
        let unwrapper = settings.secret_id_wrapped.then(|| {
            let (mount, namespace) = (settings.mount.clone(), settings.namespace.clone());
            Unwrapper::new(Arc::clone(&client), mount, namespace)
        });
        let refused = RefusedPairs::new(settings.mount.to_string(), clock);
        Self {
            client,
            settings,
            role_id_file: files
                .role_id
                .map(|file| FileCredential::new(file, "approle-role-id-path", "role ID")),
            secret_ids: SecretIds::new(files.secret_id, unwrapper, files.cache),
            refused,
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

    /// Waits until either file may hold something else than when it was last read.
    async fn files_changed(&self) {
        match &self.role_id_file {
            Some(file) => tokio::select! {
                biased;
                () = file.changed() => (),
                () = self.secret_ids.file.changed() => (),
            },
            None => self.secret_ids.file.changed().await,
        }
    }

    async fn log_in_with(
        &self,
        role_id: &Secret,
        secret_id: &Secret,
        pair: Fingerprint,
    ) -> Result<Lease, KmsError> {
        let body = LoginBody { role_id: role_id.expose(), secret_id: secret_id.expose() };
        let mount = self.settings.mount.to_string();
        let path = format!("auth/{mount}/login");
        let deadline = self.client.background_deadline();
        let at = self.client.at_active(deadline).await;
        let call = Call {
            operation: KeeperOperation::Login,
            method: Method::POST,
            path: &path,
            at,
            namespace: &self.settings.namespace,
            token: None,
            body: Some(json(&body)?),
            deadline,
            repeat: Repeat::Once,
        };
        let answer = self.client.send(call).await.map_err(|failure| {
            if matches!(&failure, Failure::Refused(refusal) if refusal.may_lock_the_role()) {
                self.refused.note(pair);
            }
            failure.into_error(Asked::Login(&mount))
        })?;
        let auth = answer.parse::<Authenticated>()?.auth;
        if auth.num_uses != 0 {
            return Err(KmsError::new(
                Code::LoginRefused,
                format!("the role's tokens end after {} uses", auth.num_uses),
                "set token_num_uses=0 on the role",
            ));
        }
        lease(&auth)
    }

    async fn token_call(
        &self,
        path: &str,
        token: &Secret,
        repeat: Repeat,
    ) -> Result<super::client::Answer, KmsError> {
        let call = Call {
            operation: KeeperOperation::Renew,
            method: Method::POST,
            path,
            at: At::Any,
            namespace: &self.settings.namespace,
            token: Some(token),
            body: Some(json(&serde_json::json!({}))?),
            deadline: self.client.background_deadline(),
            repeat,
        };
        self.client.send(call).await.map_err(|f| f.into_error(Asked::Renew))
    }
}

#[async_trait]
impl Credentials for AppRole {
    async fn login(&self) -> Result<Lease, KmsError> {
        // Both are read before either is missed, or what was not read would differ for ever.
        let (role_id, secret_id) = (self.role_id().await, self.secret_ids.current().await);
        let (role_id, secret_id) = (role_id?, secret_id?);
        let pair = Secret::new(format!("{}\n{}", role_id.expose(), secret_id.expose()));
        let pair = fingerprint(&pair);
        if let Some(refused) = self.refused.before(pair) {
            return Err(refused);
        }
        self.log_in_with(&role_id, &secret_id, pair).await
    }

    async fn renew(&self, token: &Secret) -> Result<Lease, KmsError> {
        let answer = self.token_call("auth/token/renew-self", token, Repeat::Freely).await?;
        let lease = lease(&answer.parse::<Authenticated>()?.auth)?;
        // What never expires is not renewed: 0 here is a lease that was capped to its end.
        let ttl = lease.ttl.or(Some(Duration::ZERO));
        Ok(Lease { ttl, ..lease })
    }

    async fn changed(&self) {
        loop {
            let role_id_differs = match &self.role_id_file {
                Some(file) => file.differs().await,
                None => false,
            };
            if role_id_differs || self.secret_ids.file.differs().await {
                return;
            }
            self.files_changed().await;
        }
    }

    async fn revoke(&self, token: &Secret) -> Result<(), KmsError> {
        self.token_call("auth/token/revoke-self", token, Repeat::Never).await.map(drop)
    }
}

impl fmt::Debug for AppRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppRole").field("mount", &self.settings.mount).finish_non_exhaustive()
    }
}

fn lease(auth: &Auth) -> Result<Lease, KmsError> {
    // Multi-factor logins answer 200 with an empty token.
    if auth.client_token.is_empty() {
        return Err(KmsError::new(
            Code::LoginRefused,
            "the login gave no token: it asks for a second factor",
            "exempt the role from multi-factor enforcement",
        ));
    }
    if !auth.client_token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(unreadable("the token has characters that no token has"));
    }
    let ttl = (auth.lease_duration > 0).then(|| Duration::from_secs(auth.lease_duration));
    Ok(Lease { token: Secret::new(auth.client_token.clone()), ttl, renewable: auth.renewable })
}
