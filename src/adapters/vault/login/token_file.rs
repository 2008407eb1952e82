//! Uses a token that another program writes to a file, such as the sink of Vault Agent or of
//! `OpenBao`'s agent. That program renews and revokes the token.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use http::Method;

use super::{
    credential_file::{CredentialFile, CredentialForm, CredentialPath, LoginFiles, any_changed},
    credential_text,
    port::{CredentialDigest, Lease, LoginFailure, LoginMethod, LoginSecret, Material},
    requests::{Ask, Requests},
    wrapping::{Unwrapper, Wrapped},
};
use crate::{
    adapters::vault::{
        client::Repeat,
        key_path::{MountPath, Namespace},
        refusal::{Asked, LoginAt},
        servers::Failure,
        vocabulary,
        wire::{Data, TokenData, UnwrappedToken},
    },
    domain::{
        error::{Code, KmsError},
        secret::Secret,
    },
    ports::telemetry::KeeperOperation,
};

/// The settings of `--auth-method=token-file`.
#[derive(Clone, Debug)]
pub struct TokenFileSettings {
    /// The file with the token (`--token-file`).
    pub path: PathBuf,
    /// Whether the file holds a token that wraps the token (`--token-file-wrapped`).
    pub wrapped: bool,
    /// Whether this program renews the token (`--token-file-renew`).
    pub renew: bool,
}

impl TokenFileSettings {
    /// Returns the file of the token.
    pub(super) fn file(&self) -> CredentialPath {
        CredentialPath {
            flag: FLAG,
            what: if self.wrapped { "wrapping token" } else { "token" },
            path: self.path.clone(),
            is_secret: true,
            form: if self.wrapped {
                // An agent writes a wrapping token with its accessor and lifetime.
                CredentialForm::TextOrJson("token")
            } else {
                CredentialForm::Text(", or give --token-file-wrapped if an agent wraps it")
            },
        }
    }
}

const FLAG: &str = "token-file";

/// What the wrapping token in the file must wrap. An agent wraps its token with `sys/wrapping/wrap`
/// or by a login whose answer is wrapped.
static TOKEN: Wrapped = Wrapped {
    flag: FLAG,
    flag_of_wrapping: "token-file-wrapped",
    what: "token",
    is_expected: wraps_a_token,
    remedy: "let the agent write it, with wrap_ttl in its sink or its auto_auth method",
};

/// Uses the token in a file.
#[derive(Debug)]
pub struct TokenFile {
    requests: Arc<Requests>,
    file: CredentialFile,
    /// Set if the file holds a wrapping token.
    unwrapper: Option<Unwrapper>,
    renew: bool,
    /// The last unwrapped token, and the digest of the token that wrapped it.
    unwrapped: Mutex<Option<(CredentialDigest, Secret)>>,
}

impl TokenFile {
    /// Creates the login. Reads no file and sends no request.
    pub(super) fn new(
        requests: Arc<Requests>,
        settings: &TokenFileSettings,
        files: &LoginFiles<'_>,
    ) -> Self {
        let unwrapper = settings.wrapped.then(|| Unwrapper::new(Arc::clone(&requests), &TOKEN));
        Self {
            requests,
            file: CredentialFile::open(settings.file(), files),
            unwrapper,
            renew: settings.renew,
            unwrapped: Mutex::new(None),
        }
    }

    /// Returns the token of `material`, and unwraps it if needed.
    async fn token(&self, material: &Material) -> Result<Secret, LoginFailure> {
        let text = Secret::new(material.secret.expose().to_owned());
        let Some(unwrapper) = &self.unwrapper else { return Ok(text) };
        let of = material.digest;
        let known = self.unwrapped.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, token)) = known.filter(|(wrapped_by, _)| *wrapped_by == of) {
            return Ok(token);
        }
        let (_, answer) = unwrapper.unwrap::<UnwrappedToken>(&text, None).await?;
        let token = match (&answer.auth, &answer.data) {
            (Some(auth), _) => auth.client_token.clone(),
            (None, Some(data)) => data.token.clone(),
            (None, None) => String::new(),
        };
        let token = Secret::new(token);
        credential_text::check(token.expose()).map_err(|form| {
            LoginFailure::Refused(KmsError::new(
                Code::CredentialUnreadable,
                format!("--{FLAG}: the wrapping token in this file does not wrap a token: {form}"),
                "let the agent write a new wrapping token; it is used at once",
            ))
        })?;
        *self.unwrapped.lock().unwrap_or_else(PoisonError::into_inner) = Some((of, token.clone()));
        Ok(token)
    }

    /// Returns the lease of `token`, as the keeper sees it.
    async fn look_up(&self, token: Secret) -> Result<Lease, KmsError> {
        let ask = Ask {
            operation: KeeperOperation::Login,
            method: Method::GET,
            path: "auth/token/lookup-self",
            token: Some(&token),
            body: None,
            repeat: Repeat::Freely,
            loses_a_secret: false,
        };
        let at = LoginAt { method: self.requests.method, mount: &self.requests.mount };
        let found: Result<Data<TokenData>, Failure> = self.requests.send(ask).await;
        let found = found.map_err(|failure| failure.into_error(Asked::Login(at)))?.data;
        if found.num_uses != 0 {
            return Err(KmsError::new(
                Code::LoginRefused,
                format!("the token in {} expires after {} uses", self.file.place(), found.num_uses),
                "write a token without a limit on its uses (token_num_uses=0) to the file",
            ));
        }
        let ttl = (!found.expire_time.is_null()).then(|| Duration::from_secs(found.ttl));
        let end = ttl.map(|ttl| self.requests.clock.wall().after(ttl));
        self.requests.expires(vocabulary::TOKEN, end);
        Ok(Lease {
            token,
            ttl,
            renewable: self.renew && found.renewable,
            own: false,
            ends_with_credential: true,
        })
    }
}

#[async_trait]
impl LoginMethod for TokenFile {
    async fn materials(&self) -> Result<Vec<Material>, KmsError> {
        let text = self.file.read().await?;
        Ok(vec![Material {
            digest: CredentialDigest::of(&text),
            role: Secret::new(String::new()),
            secret: if self.unwrapper.is_some() {
                LoginSecret::Wrapped(text)
            } else {
                LoginSecret::Plain(text)
            },
        }])
    }

    async fn login(&self, material: &Material) -> Result<Lease, LoginFailure> {
        let token = self.token(material).await?;
        self.look_up(token).await.map_err(LoginFailure::Failed)
    }

    async fn changed(&self) {
        any_changed(&[&self.file]).await;
    }
}

/// Returns whether `path` creates tokens or wraps the text of another program.
fn wraps_a_token(path: &str, namespace: &Namespace, _: &MountPath) -> bool {
    let below = path.strip_prefix(namespace.as_str()).and_then(|rest| rest.strip_prefix('/'));
    [Some(path), below].into_iter().flatten().any(|path| {
        path == "sys/wrapping/wrap"
            || path.starts_with("auth/token/create")
            || (path.starts_with("auth/") && path.ends_with("/login"))
    })
}
