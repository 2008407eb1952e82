//! Unwraps a credential (response wrapping). Unwraps each token once, and only if the expected
//! endpoint created it.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;

use super::{
    port::LoginFailure,
    requests::{Ask, Requests},
};
use crate::{
    adapters::vault::{
        client::{Expected, Failure, Repeat, json},
        key_path::{MountPath, Namespace},
        refusal::Asked,
        vocabulary,
        wire::{Data, WrappedBody, WrappingData},
    },
    domain::{
        error::{Code, KmsError},
        secret::Secret,
    },
    ports::telemetry::KeeperOperation,
};

/// What a wrapping token must wrap.
#[derive(Debug)]
pub(super) struct Wrapped {
    /// The flag of the file with the wrapping token, without dashes.
    pub(super) flag: &'static str,
    /// The wrapped credential, such as `secret ID`.
    pub(super) what: &'static str,
    /// Returns whether the path that created the token is the expected one, for the login's
    /// namespace and mount.
    pub(super) is_expected: fn(&str, &Namespace, &MountPath) -> bool,
    /// The remedy for a token that wraps something else.
    pub(super) remedy: &'static str,
}

/// Unwraps credentials of one kind.
#[derive(Debug)]
pub(super) struct Unwrapper {
    pub(super) requests: Arc<Requests>,
    pub(super) wrapped: &'static Wrapped,
}

impl Unwrapper {
    /// Returns what `token` wraps, and what the keeper knows about the wrapping. Uses up the token.
    /// Logs an alert if the token was used before: its user has the credential.
    ///
    /// # Errors
    /// Returns [`LoginFailure::Refused`] with [`vocabulary::WRAPPING_TOKEN_USED`] if the keeper
    /// says that the token was used or has expired, or if the answer was lost. Returns
    /// [`LoginFailure::Refused`] with [`Code::CredentialUnreadable`] if the token wraps something
    /// else. Returns [`LoginFailure::Failed`] for any other reason. In the last two cases the token
    /// can still be used.
    pub(super) async fn unwrap<T: Expected>(
        &self,
        token: &Secret,
    ) -> Result<(WrappingData, T), LoginFailure> {
        self.unwrapped(token).await.inspect_err(|failure| {
            let (LoginFailure::Refused(error) | LoginFailure::Failed(error)) = failure;
            if error.code() == vocabulary::WRAPPING_TOKEN_USED {
                let (code, cause, remedy) = (error.code().as_str(), error.cause(), error.remedy());
                let what = self.wrapped.what;
                tracing::error!(code, cause, remedy, "ALERT: the {what} may be stolen");
            }
        })
    }

    async fn unwrapped<T: Expected>(
        &self,
        token: &Secret,
    ) -> Result<(WrappingData, T), LoginFailure> {
        let Wrapped { flag, what, is_expected, remedy } = self.wrapped;
        let wrapping = self.look_up(token).await?;
        if !is_expected(&wrapping.creation_path, &self.requests.namespace, &self.requests.mount) {
            return Err(LoginFailure::Refused(KmsError::new(
                Code::CredentialUnreadable,
                format!(
                    "--{flag}: the wrapping token in this file does not wrap a {what} of this login"
                ),
                format!("{remedy}; if you did not write the file, treat it as an attack"),
            )));
        }
        match self.ask("sys/wrapping/unwrap", Some(token), None).await {
            Ok(unwrapped) => Ok((wrapping, unwrapped)),
            // The intermediary may have forwarded the request, so the keeper may have executed
            // it.
            Err(Failure::Lost(error) | Failure::Intermediary { error, .. }) => {
                Err(self.after_loss(token, &error).await)
            }
            Err(failure) => Err(self.judged(failure)),
        }
    }

    /// Reads what the keeper knows about the content of `token`. Changes nothing and is safe to
    /// repeat.
    async fn look_up(&self, token: &Secret) -> Result<WrappingData, LoginFailure> {
        let body = json(&WrappedBody { token: token.expose() }).map_err(LoginFailure::Failed)?;
        let looked_up = self.ask::<Data<WrappingData>>("sys/wrapping/lookup", None, Some(body));
        Ok(looked_up.await.map_err(|failure| self.judged(failure))?.data)
    }

    /// Returns the failure after the answer to an unwrap was lost. The token counts as used, unless
    /// the keeper says that it is still valid.
    async fn after_loss(&self, token: &Secret, error: &KmsError) -> LoginFailure {
        let Wrapped { flag, what, .. } = self.wrapped;
        let cause = format!("the answer to unwrapping the {what} was lost ({})", error.cause());
        if self.look_up(token).await.is_ok() {
            return LoginFailure::Failed(KmsError::new(
                error.code(),
                cause,
                error.remedy().to_owned(),
            ));
        }
        LoginFailure::Refused(KmsError::new(
            vocabulary::WRAPPING_TOKEN_USED,
            cause,
            format!("write a new wrapping token to the file of --{flag}"),
        ))
    }

    async fn ask<T: Expected>(
        &self,
        path: &str,
        token: Option<&Secret>,
        body: Option<Bytes>,
    ) -> Result<T, Failure> {
        // A lost answer to an unwrap loses the credential.
        let (repeat, timeout_factor) =
            if token.is_some() { (Repeat::Never, 2) } else { (Repeat::Freely, 1) };
        let operation = KeeperOperation::Login;
        let method = Method::POST;
        self.requests
            .send(Ask { operation, method, path, token, body, repeat, timeout_factor })
            .await
    }

    /// Classifies a failure. Only a refusal by the keeper itself means that the token is used up.
    /// Any other failure is tried again.
    fn judged(&self, failure: Failure) -> LoginFailure {
        let Wrapped { flag, what, .. } = self.wrapped;
        match failure {
            Failure::Refused(refusal) if refusal.refuses_the_wrapping_token() => {
                LoginFailure::Refused(KmsError::new(
                    vocabulary::WRAPPING_TOKEN_USED,
                    format!("the wrapping token of the {what} was used before, or has expired"),
                    format!(
                        "if you did not use it, revoke what it wrapped; then write a new wrapping token to the file of --{flag}"
                    ),
                ))
            }
            failure => LoginFailure::Failed(failure.into_error(Asked::Wrapping)),
        }
    }
}
