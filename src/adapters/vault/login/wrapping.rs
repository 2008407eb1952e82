//! Unwraps a credential (response wrapping). Unwraps each token once, and only if the expected
//! endpoint created it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::Method;

use super::{
    port::{CredentialDigest, LoginFailure},
    requests::{Ask, Requests},
};
use crate::{
    adapters::vault::{
        client::Repeat,
        key_path::{MountPath, Namespace},
        refusal::Asked,
        servers::{Expected, Failure, json},
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
    /// The flag that says that this file holds a wrapping token, without dashes.
    pub(super) flag_of_wrapping: &'static str,
    /// The wrapped credential, such as `secret ID`.
    pub(super) what: &'static str,
    /// Returns whether the path that created the token is the expected one, for the login's
    /// namespace and mount.
    pub(super) is_expected: fn(&str, &Namespace, &MountPath) -> bool,
    /// The remedy for a token that wraps something else.
    pub(super) remedy: &'static str,
}

/// An unwrap to which no answer came.
#[derive(Clone, Debug)]
struct LostUnwrap {
    token: CredentialDigest,
    why: String,
    /// Whether the token was still valid at a lookup after that. The unwrap may then have reached
    /// the keeper later, or another process has used the token.
    was_valid_later: bool,
}

/// Unwraps credentials of one kind.
#[derive(Debug)]
pub(super) struct Unwrapper {
    pub(super) requests: Arc<Requests>,
    wrapped: &'static Wrapped,
    /// The last token to whose unwrap no answer came.
    lost: Mutex<Option<LostUnwrap>>,
}

impl Unwrapper {
    pub(super) const fn new(requests: Arc<Requests>, wrapped: &'static Wrapped) -> Self {
        Self { requests, wrapped, lost: Mutex::new(None) }
    }

    /// Returns what `token` wraps, and what the keeper knows about the wrapping. Uses up the token.
    /// Logs an alert if the token was used before: its user has the credential. A program that does
    /// not serve only looks the token up. `cache_problem` says why the credential could not be read
    /// from the cache, if so: this provider may then have used the token itself.
    ///
    /// # Errors
    /// Returns [`LoginFailure::Failed`] with [`vocabulary::WRAPPING_TOKEN_LEFT`] in a program that
    /// does not serve. In the provider:
    ///
    /// Returns [`LoginFailure::Refused`] with [`vocabulary::WRAPPING_TOKEN_USED`] if the keeper
    /// says that the token was used or has expired; with a `cache_problem` it is
    /// [`LoginFailure::Failed`]. Returns [`LoginFailure::Refused`] with
    /// [`Code::CredentialUnreadable`] if the token wraps something else. Returns
    /// [`LoginFailure::Failed`] for any other reason, also if the answer to the unwrap was lost. In
    /// the last two cases the token may still be valid.
    pub(super) async fn unwrap<T: Expected>(
        &self,
        token: &Secret,
        cache_problem: Option<&str>,
    ) -> Result<(WrappingData, T), LoginFailure> {
        let Wrapped { flag, flag_of_wrapping, what, is_expected, remedy } = self.wrapped;
        let wrapping = self.look_up(token, cache_problem).await?;
        if !is_expected(&wrapping.creation_path, &self.requests.namespace, &self.requests.mount) {
            return Err(LoginFailure::Refused(KmsError::new(
                Code::CredentialUnreadable,
                format!(
                    "--{flag}: the wrapping token in this file does not wrap a {what} of this login"
                ),
                format!("{remedy}; if you did not write the file, treat it as an attack"),
            )));
        }
        if !self.requests.unwraps {
            return Err(LoginFailure::Failed(KmsError::new(
                vocabulary::WRAPPING_TOKEN_LEFT,
                format!(
                    "the wrapping token of the {what} is valid, and this program leaves it to the \
                     provider, because it works once"
                ),
                format!(
                    "start the provider and read its /statusz; or give a file with a {what} that is not \
                     wrapped, and leave out --{flag_of_wrapping}"
                ),
            )));
        }
        let failure = match self.ask("sys/wrapping/unwrap", Some(token), None).await {
            Ok(unwrapped) => {
                *self.lost() = None;
                return Ok((wrapping, unwrapped));
            }
            Err(Failure::Refused(refusal)) if refusal.refuses_the_wrapping_token() => {
                return Err(self.used(token, cache_problem));
            }
            Err(failure) => failure,
        };
        // An intermediary may have forwarded the request, and a keeper that failed may have unwrapped
        // before.
        let may_be_used = match &failure {
            Failure::Lost(_) | Failure::Intermediary { .. } => true,
            Failure::Refused(refusal) => refusal.status >= 500,
            Failure::Unsent(_) | Failure::Redirected { .. } | Failure::Disregarded(_) => false,
        };
        let error = failure.into_error(Asked::Wrapping);
        if may_be_used {
            *self.lost() = Some(LostUnwrap {
                token: CredentialDigest::of(token),
                why: error.cause().to_owned(),
                was_valid_later: false,
            });
            if let Err(used @ LoginFailure::Refused(_)) = self.look_up(token, cache_problem).await {
                return Err(used);
            }
        }
        // The next attempt begins with another lookup.
        Err(LoginFailure::Failed(error))
    }

    /// Returns the failure for a token that the keeper says was used. If this process has lost the
    /// answer to its own unwrap, that was the use. Otherwise logs an alert, unless the cache could not
    /// be read.
    fn used(&self, token: &Secret, cache_problem: Option<&str>) -> LoginFailure {
        let Wrapped { flag, what, .. } = self.wrapped;
        let lost = self.lost().clone();
        let used = vocabulary::WRAPPING_TOKEN_USED;
        if let Some(lost) = lost.filter(|lost| lost.token == CredentialDigest::of(token)) {
            let (who, first) = if lost.was_valid_later {
                (
                    "by a late request whose answer was lost, or by another process",
                    format!("revoke the {what} if another process can read its file; then "),
                )
            } else {
                ("and the answer was lost", String::new())
            };
            return LoginFailure::Refused(KmsError::new(
                used,
                format!("the {what} was unwrapped, {who} ({})", lost.why),
                format!("{first}write a new wrapping token to the file of --{flag}"),
            ));
        }
        let cause = format!("the wrapping token of the {what} was used before, or has expired");
        if !self.requests.unwraps {
            return LoginFailure::Refused(KmsError::new(
                used,
                cause,
                format!(
                    "look in the provider's log: after a login that followed this token and no ALERT, the \
                     provider used it; otherwise revoke what it wrapped, and write a new wrapping token to \
                     the file of --{flag}"
                ),
            ));
        }
        if let Some(problem) = cache_problem {
            return LoginFailure::Failed(KmsError::new(
                used,
                format!("{cause}, and {problem}"),
                format!(
                    "if this provider used the token before, make that file readable; otherwise write a \
                     new wrapping token to the file of --{flag}, and revoke what the old one wrapped"
                ),
            ));
        }
        let error = KmsError::new(
            used,
            cause,
            format!(
                "if you did not use it, revoke what it wrapped; then write a new wrapping token to the file of --{flag}"
            ),
        );
        let (code, cause, remedy) = (error.code().as_str(), error.cause(), error.remedy());
        tracing::error!(code, cause, remedy, "ALERT: the {what} may be stolen");
        LoginFailure::Refused(error)
    }

    fn lost(&self) -> MutexGuard<'_, Option<LostUnwrap>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the keeper knows about the content of `token`. Changes nothing and is safe to
    /// repeat. Only a refusal by the keeper itself means that the token is used up.
    async fn look_up(
        &self,
        token: &Secret,
        cache_problem: Option<&str>,
    ) -> Result<WrappingData, LoginFailure> {
        let body = json(&WrappedBody { token: token.expose() }).map_err(LoginFailure::Failed)?;
        match self.ask::<Data<WrappingData>>("sys/wrapping/lookup", None, Some(body)).await {
            Ok(known) => {
                // A lost unwrap may still reach the keeper.
                let digest = CredentialDigest::of(token);
                if let Some(lost) = self.lost().as_mut().filter(|lost| lost.token == digest) {
                    lost.was_valid_later = true;
                }
                Ok(known.data)
            }
            Err(Failure::Refused(refusal)) if refusal.refuses_the_wrapping_token() => {
                Err(self.used(token, cache_problem))
            }
            Err(failure) => Err(LoginFailure::Failed(failure.into_error(Asked::Wrapping))),
        }
    }

    async fn ask<T: Expected>(
        &self,
        path: &str,
        token: Option<&Secret>,
        body: Option<Bytes>,
    ) -> Result<T, Failure> {
        // A lost answer to an unwrap loses the credential.
        let loses_a_secret = token.is_some();
        let repeat = if loses_a_secret { Repeat::Never } else { Repeat::Freely };
        let operation = KeeperOperation::Login;
        let method = Method::POST;
        self.requests
            .send(Ask { operation, method, path, token, body, repeat, loses_a_secret })
            .await
    }
}
