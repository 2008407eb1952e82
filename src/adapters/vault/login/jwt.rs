//! Logs in with a JWT in a file: of any issuer that the server trusts (`jwt`), or of a Kubernetes
//! service account (`kubernetes`). The issuer's program replaces the file before the JWT expires.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;

use super::{
    credential_file::{CredentialFile, CredentialForm, CredentialPath, LoginFiles, any_changed},
    jwt_claims::Claims,
    method::AuthMethod,
    port::{CredentialDigest, Lease, LoginFailure, LoginMethod, LoginSecret, Material},
    requests::Requests,
};
use crate::{
    adapters::vault::{servers::json, vocabulary, wire::JwtBody},
    domain::{
        error::{Code, KmsError},
        secret::Secret,
    },
};

/// The settings of `--auth-method=jwt` and `--auth-method=kubernetes`.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    /// The role. If empty, the server uses the default role of the mount.
    pub role: String,
    /// The file with the JWT.
    pub path: PathBuf,
}

impl JwtSettings {
    /// Returns the file of the JWT.
    pub(super) fn file(&self, method: AuthMethod) -> CredentialPath {
        CredentialPath {
            flag: if method == AuthMethod::Kubernetes { "kubernetes-jwt-path" } else { "jwt-path" },
            what: "JWT",
            path: self.path.clone(),
            is_secret: true,
            form: CredentialForm::Jwt,
        }
    }
}

/// Logs in with a JWT.
#[derive(Debug)]
pub struct Jwt {
    requests: Arc<Requests>,
    role: Secret,
    file: CredentialFile,
}

impl Jwt {
    /// Creates the login. Reads no file and sends no request.
    pub(super) fn new(
        requests: Arc<Requests>,
        settings: &JwtSettings,
        files: &LoginFiles<'_>,
    ) -> Self {
        let file = CredentialFile::open(settings.file(requests.method), files);
        Self { requests, role: Secret::new(settings.role.clone()), file }
    }
}

/// Logs in with the JWT of `material`. Adds to a refusal what the JWT says about itself.
pub(super) async fn log_in(
    requests: &Arc<Requests>,
    material: &Material,
) -> Result<Lease, LoginFailure> {
    let jwt = material.secret.expose();
    let body = json(&JwtBody { role: material.role.expose(), jwt });
    let outcome = requests.log_in(material.digest, body.map_err(LoginFailure::Failed)?).await;
    let with_claims = |error: KmsError| {
        if error.code() != Code::LoginRefused {
            return error;
        }
        let Some(claims) = Claims::read(jwt) else { return error };
        let about = claims.describe(requests.clock.wall());
        let cause = format!("{}; {about}", error.cause());
        KmsError::new(Code::LoginRefused, cause, error.remedy().to_owned())
    };
    outcome.map_err(|failure| failure.map(with_claims))
}

#[async_trait]
impl LoginMethod for Jwt {
    async fn materials(&self) -> Result<Vec<Material>, KmsError> {
        let jwt = self.file.read().await?;
        let end = Claims::read(jwt.expose()).and_then(|claims| claims.end);
        self.requests.expires(vocabulary::JWT, end);
        Ok(vec![Material {
            digest: CredentialDigest::of(&jwt),
            role: self.role.clone(),
            secret: LoginSecret::Plain(jwt),
        }])
    }

    async fn login(&self, material: &Material) -> Result<Lease, LoginFailure> {
        log_in(&self.requests, material).await
    }

    async fn changed(&self) {
        any_changed(&[&self.file]).await;
    }
}
