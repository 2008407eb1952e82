//! AppRole: a role ID, and a secret ID that is read from its file at each login.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use http::Method;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::{
    client::{Call, Repeat, VaultClient, json, unreadable},
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
        telemetry::KeeperOperation,
    },
};

/// Longest secret ID, in bytes; Vault's own have 36.
const SECRET_ID_MAX: u64 = 4_096;

/// How often the file is looked at while a change of it is waited for.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Who we are to Vault.
#[derive(Clone, Debug)]
pub struct AppRoleSettings {
    /// The auth method's mount (`--auth-mount`).
    pub mount: MountPath,
    /// The mount's namespace (`--vault-auth-namespace`).
    pub namespace: Namespace,
    /// Not secret.
    pub role_id: String,
    /// The file that holds the secret ID.
    pub secret_id_path: PathBuf,
}

/// Logs in by AppRole.
pub struct AppRole {
    client: Arc<VaultClient>,
    clock: Arc<dyn Clock>,
    settings: AppRoleSettings,
    /// The hash of the secret ID that the last login used; `None` when it could not be read.
    used: Mutex<Option<[u8; 32]>>,
}

impl AppRole {
    /// Credentials that were not used yet.
    #[must_use]
    pub fn new(client: Arc<VaultClient>, clock: Arc<dyn Clock>, settings: AppRoleSettings) -> Self {
        Self { client, clock, settings, used: Mutex::new(None) }
    }

    /// Reads the secret ID, without the newline that editors and `echo` leave at its end.
    ///
    /// # Errors
    /// [`Code::CredentialUnreadable`], naming the flag and the remedy.
    pub async fn secret_id(settings: &AppRoleSettings) -> Result<Secret, KmsError> {
        let path = &settings.secret_id_path;
        let unreadable = |why: String, remedy: &'static str| {
            let cause = format!("--approle-secret-id-path: {} {why}", path.display());
            KmsError::new(Code::CredentialUnreadable, cause, remedy)
        };
        let cannot_read = |error: io::Error| {
            unreadable(
                format!("cannot be read: {error}"),
                "write the secret ID there, readable by this process's uid",
            )
        };
        let file = tokio::fs::File::open(path).await.map_err(cannot_read)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(4_097));
        file.take(SECRET_ID_MAX + 1).read_to_end(&mut bytes).await.map_err(cannot_read)?;
        let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
        let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= SECRET_ID_MAX);
        if text.is_empty() || !fits || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(unreadable(
                "holds no secret ID".to_owned(),
                "write the secret ID alone into it, as one line",
            ));
        }
        Ok(Secret::new(text.to_owned()))
    }

    fn auth_path(&self, what: &str) -> String {
        format!("auth/{}/{what}", self.settings.mount)
    }

    async fn token_call(&self, path: &str, token: &Secret) -> Result<Auth, KmsError> {
        let call = Call {
            operation: KeeperOperation::Renew,
            method: Method::POST,
            path,
            namespace: &self.settings.namespace,
            token: Some(token),
            body: Some(json(&serde_json::json!({}))?),
            deadline: self.client.background_deadline(),
            repeat: Repeat::Freely,
        };
        let answer = self.client.send(call).await.map_err(|f| f.into_error(Asked::Renew))?;
        Ok(answer.parse::<Authenticated>()?.auth)
    }
}

#[async_trait]
impl Credentials for AppRole {
    async fn login(&self) -> Result<Lease, KmsError> {
        let secret_id = Self::secret_id(&self.settings).await;
        let hash = secret_id.as_ref().ok().map(fingerprint);
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = hash;
        let secret_id = secret_id?;
        let body = LoginBody { role_id: &self.settings.role_id, secret_id: secret_id.expose() };
        let path = self.auth_path("login");
        let call = Call {
            operation: KeeperOperation::Login,
            method: Method::POST,
            path: &path,
            namespace: &self.settings.namespace,
            token: None,
            body: Some(json(&body)?),
            deadline: self.client.background_deadline(),
            repeat: Repeat::Once,
        };
        let mount = self.settings.mount.to_string();
        let answer =
            self.client.send(call).await.map_err(|f| f.into_error(Asked::Login(&mount)))?;
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

    async fn renew(&self, token: &Secret) -> Result<Lease, KmsError> {
        let lease = lease(&self.token_call("auth/token/renew-self", token).await?)?;
        // What never expires is not renewed: 0 here is a lease that was capped to its end.
        let ttl = lease.ttl.or(Some(Duration::ZERO));
        Ok(Lease { ttl, ..lease })
    }

    async fn changed(&self) {
        loop {
            self.clock.sleep(LOOK_EVERY).await;
            let hash = Self::secret_id(&self.settings).await.ok().map(|id| fingerprint(&id));
            let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
            if hash.is_some() && hash != used {
                return;
            }
        }
    }

    async fn revoke(&self, token: &Secret) -> Result<(), KmsError> {
        let call = Call {
            operation: KeeperOperation::Renew,
            method: Method::POST,
            path: "auth/token/revoke-self",
            namespace: &self.settings.namespace,
            token: Some(token),
            body: None,
            deadline: self.client.background_deadline(),
            repeat: Repeat::Never,
        };
        self.client.send(call).await.map(drop).map_err(|f| f.into_error(Asked::Renew))
    }
}

impl fmt::Debug for AppRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppRole").field("mount", &self.settings.mount).finish_non_exhaustive()
    }
}

fn fingerprint(secret: &Secret) -> [u8; 32] {
    Sha256::digest(secret.expose().as_bytes()).into()
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
