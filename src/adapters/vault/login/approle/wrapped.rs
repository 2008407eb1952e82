//! A wrapped secret ID: which endpoint creates it, and when it expires.

use std::time::{Duration, UNIX_EPOCH};

use crate::{
    adapters::vault::{
        key_path::{MountPath, Namespace},
        login::wrapping::Wrapped,
        wire::{SecretIdData, WrappingData},
    },
    domain::time::UnixTime,
};

/// What the wrapping token of a secret ID must wrap.
pub(super) static SECRET_ID: Wrapped = Wrapped {
    flag: "approle-secret-id-path",
    flag_of_wrapping: "approle-secret-id-wrapped",
    what: "secret ID",
    is_expected: is_secret_id_path,
    remedy: "create one with `vault write -wrap-ttl=… -f auth/<mount>/role/<role>/secret-id`",
};

/// Returns when a secret ID expires. Its lifetime starts at its creation, which is the time of the
/// wrapping.
pub(super) fn end(wrapping: &WrappingData, unwrapped: &SecretIdData) -> Option<UnixTime> {
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
