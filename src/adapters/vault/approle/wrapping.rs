//! Unwraps a wrapped secret ID (response wrapping). Unwraps each token once, and only if a
//! secret-ID endpoint of our auth mount created it.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;

use super::requests::{Ask, Requests};
use crate::{
    adapters::vault::{
        client::{Expected, Failure, Repeat, json},
        credentials::LoginFailure,
        key_path::{MountPath, Namespace},
        refusal::Asked,
        vocabulary,
        wire::{Data, SecretIdData, WrappedBody, WrappingData},
    },
    domain::{
        error::{Code, KmsError},
        secret::Secret,
        time::UnixTime,
    },
    ports::telemetry::KeeperOperation,
};

/// An unwrapped secret ID.
pub(super) struct Unwrapped {
    pub(super) secret_id: Secret,
    /// When the secret ID expires, if the keeper says so.
    pub(super) end: Option<UnixTime>,
}

/// Unwraps secret IDs of one auth mount.
#[derive(Debug)]
pub(super) struct Unwrapper {
    requests: Arc<Requests>,
}

impl Unwrapper {
    pub(super) const fn new(requests: Arc<Requests>) -> Self {
        Self { requests }
    }

    /// Returns the secret ID that `token` wraps, and when it expires. Uses up the token.
    ///
    /// # Errors
    /// Returns [`LoginFailure::Refused`] with [`vocabulary::WRAPPING_TOKEN_USED`] if the keeper
    /// says that the token was used or has expired, or if the answer was lost. Returns
    /// [`LoginFailure::Refused`] with [`Code::CredentialUnreadable`] if the token wraps something
    /// else. Returns [`LoginFailure::Failed`] for any other reason. In the last two cases the token
    /// can still be used.
    pub(super) async fn unwrap(&self, token: &Secret) -> Result<Unwrapped, LoginFailure> {
        let wrapping = self.look_up(token).await?;
        if !is_secret_id_path(
            &wrapping.creation_path,
            &self.requests.namespace,
            &self.requests.mount,
        ) {
            return Err(LoginFailure::Refused(KmsError::new(
                Code::CredentialUnreadable,
                "--approle-secret-id-path: the wrapping token in this file does not wrap a secret ID of this auth mount",
                "create one with `vault write -wrap-ttl=… -f auth/<mount>/role/<role>/secret-id`; if you did not write it, treat it as an attack",
            )));
        }
        let mut unwrapped: Data<SecretIdData> =
            match self.ask("sys/wrapping/unwrap", Some(token), None).await {
                Ok(unwrapped) => unwrapped,
                // The intermediary may have forwarded the request, so the keeper may have executed
                // it.
                Err(Failure::Lost(error) | Failure::Intermediary { error, .. }) => {
                    return Err(self.after_loss(token, &error).await);
                }
                Err(failure) => return Err(judged(failure)),
            };
        Ok(Unwrapped {
            end: end(&wrapping, &unwrapped.data),
            secret_id: Secret::new(std::mem::take(&mut unwrapped.data.secret_id)),
        })
    }

    /// Reports when the secret ID in use expires. `None` means that the time is not known.
    pub(super) fn report_end(&self, end: Option<UnixTime>) {
        self.requests.client.expires(vocabulary::SECRET_ID, end);
    }

    /// Reads what the keeper knows about the content of `token`. Changes nothing and is safe to
    /// repeat.
    async fn look_up(&self, token: &Secret) -> Result<WrappingData, LoginFailure> {
        let body = json(&WrappedBody { token: token.expose() }).map_err(LoginFailure::Failed)?;
        let looked_up = self.ask::<Data<WrappingData>>("sys/wrapping/lookup", None, Some(body));
        Ok(looked_up.await.map_err(judged)?.data)
    }

    /// Returns the failure after the answer to an unwrap was lost. The token counts as used, unless
    /// the keeper says that it is still valid.
    async fn after_loss(&self, token: &Secret, error: &KmsError) -> LoginFailure {
        let cause = format!("the answer to unwrapping the secret ID was lost ({})", error.cause());
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
            "write a new wrapping token to the file of --approle-secret-id-path",
        ))
    }

    async fn ask<T: Expected>(
        &self,
        path: &str,
        token: Option<&Secret>,
        body: Option<Bytes>,
    ) -> Result<T, Failure> {
        // A lost answer to an unwrap loses the secret ID.
        let (repeat, timeout_factor) =
            if token.is_some() { (Repeat::Never, 2) } else { (Repeat::Freely, 1) };
        let operation = KeeperOperation::Login;
        self.requests.send(Ask { operation, path, token, body, repeat, timeout_factor }).await
    }
}

/// Classifies a failure. Only a refusal by the keeper itself means that the token is used up. Any
/// other failure is tried again.
fn judged(failure: Failure) -> LoginFailure {
    match failure {
        Failure::Refused(refusal) if refusal.refuses_the_wrapping_token() => {
            LoginFailure::Refused(KmsError::new(
                vocabulary::WRAPPING_TOKEN_USED,
                "the wrapping token of the secret ID was used before, or has expired",
                "if you did not use it, destroy the role's secret IDs; then write a new wrapping token to the file of --approle-secret-id-path",
            ))
        }
        failure => LoginFailure::Failed(failure.into_error(Asked::Wrapping)),
    }
}

/// Returns when a secret ID expires. Its lifetime starts at its creation, which is the time of the
/// wrapping.
fn end(wrapping: &WrappingData, unwrapped: &SecretIdData) -> Option<UnixTime> {
    let ttl = unwrapped.secret_id_ttl.as_u64().filter(|ttl| *ttl > 0)?;
    Some(rfc3339(wrapping.creation_time.as_str()?)?.after(Duration::from_secs(ttl)))
}

/// Parses a time in RFC 3339 with any offset from UTC.
fn rfc3339(text: &str) -> Option<UnixTime> {
    let (utc, offset) = match text.split_at_checked(text.len().checked_sub(6)?)? {
        (local, offset) if offset.starts_with(['+', '-']) => {
            let (hours, minutes) = offset.get(1..)?.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            let sign = if offset.starts_with('-') { -1 } else { 1 };
            (format!("{local}Z"), sign * minutes * 60)
        }
        _ => (text.to_owned(), 0),
    };
    let since = humantime::parse_rfc3339(&utc).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(UnixTime::from_secs(i64::try_from(since.as_secs()).ok()?.checked_sub(offset)?))
}

/// Returns whether the `creation_path` is `auth/<mount>/role/<any>/secret-id` or
/// `…/custom-secret-id`. Some servers write the segments of the namespace before it.
fn is_secret_id_path(path: &str, namespace: &Namespace, mount: &MountPath) -> bool {
    let matches = |path: &str| {
        let role = path.strip_prefix(&format!("auth/{mount}/role/"));
        let (role, end) = role.and_then(|rest| rest.split_once('/')).unwrap_or_default();
        !role.is_empty() && matches!(end, "secret-id" | "custom-secret-id")
    };
    let below = path.strip_prefix(namespace.as_str()).and_then(|rest| rest.strip_prefix('/'));
    matches(path) || below.is_some_and(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_lifetime_of_a_secret_id_from_its_wrapping() {
        let read = |time: serde_json::Value, ttl: serde_json::Value| {
            let wrapping = serde_json::json!({"creation_path": "x", "creation_time": time});
            let unwrapped = serde_json::json!({"secret_id": "x", "secret_id_ttl": ttl});
            let wrapping = serde_json::from_value(wrapping).unwrap();
            end(&wrapping, &serde_json::from_value(unwrapped).unwrap()).map(UnixTime::secs)
        };
        let made = "2026-01-01T00:00:00.123456789Z";
        assert_eq!(read(made.into(), 600.into()), Some(1_767_226_200));
        assert_eq!(read("2026-01-01T02:30:00+02:30".into(), 600.into()), Some(1_767_226_200));
        assert_eq!(read("2025-12-31T23:00:00-01:00".into(), 600.into()), Some(1_767_226_200));
        assert_eq!(read(made.into(), u64::MAX.into()).unwrap(), i64::MAX.div_euclid(1_000));
        for (time, ttl) in [
            (made.into(), 0.into()),
            (made.into(), "10m".into()),
            (made.into(), (-1).into()),
            ("yesterday".into(), 600.into()),
            ("é+99:99".into(), 600.into()),
            ("2026-01-01T00:00:00+99999:9".into(), 600.into()),
            (serde_json::Value::Null, 600.into()),
        ] {
            assert_eq!(read(time, ttl), None);
        }
    }

    #[test]
    fn recognises_paths_of_secret_ids_in_every_namespace() {
        for (namespace, mount, path, is_one) in [
            ("", "approle", "auth/approle/role/r/secret-id", true),
            ("", "approle", "auth/approle/role/r/custom-secret-id", true),
            ("", "team/approle", "auth/team/approle/role/r/secret-id", true),
            ("admin", "approle", "admin/auth/approle/role/r/secret-id", true),
            ("admin/team", "approle", "admin/team/auth/approle/role/r/custom-secret-id", true),
            ("admin", "approle", "auth/approle/role/r/secret-id", true),
            // A namespace is a whole segment: `a` is not a prefix of `auth`.
            ("a", "approle", "auth/approle/role/r/secret-id", true),
            ("au", "approle", "auth/approle/role/r/secret-id", true),
            ("auth", "approle", "auth/auth/approle/role/r/secret-id", true),
            ("auth", "approle", "auth/approle/role/r/secret-id", true),
            ("admin", "approle", "other/auth/approle/role/r/secret-id", false),
            ("admin", "approle", "adminauth/approle/role/r/secret-id", false),
            ("", "approle", "admin/auth/approle/role/r/secret-id", false),
            ("", "approle", "auth/other/role/r/secret-id", false),
            ("", "approle", "auth/approle/role//secret-id", false),
            ("", "approle", "auth/approle/role/r/x/secret-id", false),
            ("", "approle", "auth/approle/role/r/secret-id/lookup", false),
            ("", "approle", "auth/approle/role/r/role-id", false),
            ("", "approle", "sys/wrapping/wrap", false),
            ("", "approle", "", false),
        ] {
            let namespace = Namespace::parse(namespace).unwrap();
            let mount = MountPath::parse(mount).unwrap();
            assert_eq!(is_secret_id_path(path, &namespace, &mount), is_one, "{namespace:?} {path}");
        }
    }
}
