//! The methods of logging in, and their settings.

use std::{path::Path, sync::Arc};

use super::{
    approle::{AppRole, AppRoleSettings},
    cert::{Cert, CertSettings},
    credential_file::{CredentialPath, LoginFiles},
    jwt::{Jwt, JwtSettings},
    port::LoginMethod,
    requests::Requests,
    spiffe::{SpiffeJwt, SpiffeLoginSettings, SpiffeX509, Svid},
    token_file::{TokenFile, TokenFileSettings},
};

/// A method of logging in, as `--auth-method` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// A role ID and a secret ID.
    AppRole,
    /// A JWT of any issuer that the server trusts.
    Jwt,
    /// A token of a Kubernetes service account, which an API server reviews.
    Kubernetes,
    /// The client certificate of the connection.
    Cert,
    /// An identity that a SPIFFE agent gives to this process.
    Spiffe,
    /// A token that another program writes to a file.
    TokenFile,
}

impl AuthMethod {
    /// All methods, the default first.
    pub const ALL: [Self; 6] =
        [Self::AppRole, Self::Jwt, Self::Kubernetes, Self::Cert, Self::Spiffe, Self::TokenFile];

    /// Returns the value of `--auth-method`. It is the default mount too, except of `spiffe`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AppRole => "approle",
            Self::Jwt => "jwt",
            Self::Kubernetes => "kubernetes",
            Self::Cert => "cert",
            Self::Spiffe => "spiffe",
            Self::TokenFile => "token-file",
        }
    }
}

/// The settings of a method.
#[derive(Clone, Debug)]
pub enum MethodSettings {
    /// [`AuthMethod::AppRole`].
    AppRole(AppRoleSettings),
    /// [`AuthMethod::Jwt`].
    Jwt(JwtSettings),
    /// [`AuthMethod::Kubernetes`].
    Kubernetes(JwtSettings),
    /// [`AuthMethod::Cert`].
    Cert(CertSettings),
    /// [`AuthMethod::Spiffe`].
    Spiffe(SpiffeLoginSettings),
    /// [`AuthMethod::TokenFile`].
    TokenFile(TokenFileSettings),
}

impl MethodSettings {
    /// Returns the method of these settings.
    #[must_use]
    pub const fn method(&self) -> AuthMethod {
        match self {
            Self::AppRole(_) => AuthMethod::AppRole,
            Self::Jwt(_) => AuthMethod::Jwt,
            Self::Kubernetes(_) => AuthMethod::Kubernetes,
            Self::Cert(_) => AuthMethod::Cert,
            Self::Spiffe(_) => AuthMethod::Spiffe,
            Self::TokenFile(_) => AuthMethod::TokenFile,
        }
    }

    /// Returns the credential files that are read before each login.
    #[must_use]
    pub fn files(&self) -> Vec<CredentialPath> {
        match self {
            Self::AppRole(settings) => settings.files(),
            Self::Jwt(settings) | Self::Kubernetes(settings) => vec![settings.file(self.method())],
            Self::Cert(_) | Self::Spiffe(_) => Vec::new(),
            Self::TokenFile(settings) => vec![settings.file()],
        }
    }

    /// Returns the socket of the agent that gives an identity, if the method uses one.
    #[must_use]
    pub fn agent(&self) -> Option<&Path> {
        match self {
            Self::Spiffe(settings) => Some(&settings.agent.socket),
            _ => None,
        }
    }

    /// Returns whether the login presents the certificate of an agent on each connection.
    #[must_use]
    pub const fn presents_a_certificate(&self) -> bool {
        matches!(self, Self::Spiffe(SpiffeLoginSettings { svid: Svid::X509, .. }))
    }

    /// Returns the file that this program writes, if there is one.
    #[must_use]
    pub fn cache(&self) -> Option<&Path> {
        match self {
            Self::AppRole(settings) => settings.secret_id_cache.as_deref(),
            Self::Jwt(_)
            | Self::Kubernetes(_)
            | Self::Cert(_)
            | Self::Spiffe(_)
            | Self::TokenFile(_) => None,
        }
    }

    /// Creates the method. Reads no file and sends no request.
    pub(super) fn open(
        &self,
        requests: Arc<Requests>,
        files: &LoginFiles<'_>,
    ) -> Arc<dyn LoginMethod> {
        match self {
            Self::AppRole(settings) => Arc::new(AppRole::new(requests, settings, files)),
            Self::Jwt(settings) | Self::Kubernetes(settings) => {
                Arc::new(Jwt::new(requests, settings, files))
            }
            Self::Cert(settings) => Arc::new(Cert::new(requests, settings)),
            Self::Spiffe(settings) => {
                let identity = (files.identity)(&settings.agent);
                match &settings.svid {
                    Svid::Jwt(audience) => {
                        Arc::new(SpiffeJwt::new(requests, settings, audience, identity))
                    }
                    Svid::X509 => Arc::new(SpiffeX509::new(requests, settings, identity)),
                }
            }
            Self::TokenFile(settings) => Arc::new(TokenFile::new(requests, settings, files)),
        }
    }
}
