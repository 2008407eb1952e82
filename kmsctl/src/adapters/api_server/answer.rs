//! What an answer of the API server means. No text of an answer is passed on, because it may hold
//! values of an object.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;

use crate::ports::rewriting::Refusal;

/// The longest pause that the API server may ask for.
const MAX_PAUSE: Duration = Duration::from_mins(1);

/// The longest name or key that is passed on.
const MAX_NAME: usize = 512;

/// What the API server says of one object that it cannot decrypt: of `crypto/cipher`, and of
/// `k8s.io/apiserver/pkg/storage/value` with its `encrypt` packages.
const UNREADABLE: [&str; 4] = [
    "message authentication failed",
    "failed to decrypt",
    "no matching prefix found",
    "identity transformer tried to read encrypted data",
];

/// The `Status` of a refused request (`k8s.io/apimachinery/pkg/apis/meta/v1`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    kind: String,
    message: String,
    reason: String,
    metadata: ListMeta,
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ListMeta {
    #[serde(rename = "continue")]
    again: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    name: String,
    causes: Vec<Cause>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
    field: String,
}

/// Returns what a refusal means. `request` names the request, such as `list secrets`.
pub(super) fn refusal(
    code: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    request: &str,
) -> Refusal {
    let status: Status = serde_json::from_slice(body).unwrap_or_default();
    let text = status.message.as_str();
    let told = format!("{} {}", code.as_u16(), code.canonical_reason().unwrap_or_default());
    let webhook = between(text, "webhook \"", "\"");
    match code {
        _ if text.contains("database space exceeded") => Refusal::Full,
        // Encrypted, an object is longer. One just below the limit of etcd cannot be stored again.
        _ if text.contains("etcdserver: request is too large") => {
            Refusal::Rejected(format!("{told}: the object is too large for etcd"))
        }
        // A webhook chooses its code. The text is that of `k8s.io/apiserver/pkg/admission/plugin/webhook`.
        _ if webhook.is_some() && (code.is_client_error() || code.is_server_error()) => {
            let name = webhook.unwrap_or_default();
            let verb = if text.contains("denied the request") { "denies it" } else { "fails" };
            Refusal::Rejected(format!("{told}: the admission webhook {name} {verb}"))
        }
        StatusCode::UNAUTHORIZED => Refusal::Unauthenticated,
        // The text of a missing right (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters`). An
        // admission policy chooses its own text.
        StatusCode::FORBIDDEN
            if text.contains("forbidden: User \"") && text.contains("\" cannot ") =>
        {
            Refusal::Forbidden(request.to_owned())
        }
        // While the API server starts, its router answers 404 and names no object.
        StatusCode::NOT_FOUND if !status.details.name.is_empty() => Refusal::Gone,
        StatusCode::CONFLICT => Refusal::Changed,
        StatusCode::GONE => Refusal::Expired {
            again: Some(status.metadata.again).filter(|again| !again.is_empty()),
        },
        StatusCode::TOO_MANY_REQUESTS => Refusal::Busy(pause(headers)),
        StatusCode::NOT_FOUND
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT
        | StatusCode::BAD_GATEWAY
        | StatusCode::REQUEST_TIMEOUT => Refusal::Unavailable(format!("{told} to {request}")),
        StatusCode::NOT_ACCEPTABLE | StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Refusal::Misunderstood(request.to_owned())
        }
        _ if code.is_server_error() => internal(&status, &told, request),
        StatusCode::BAD_REQUEST if status.kind.is_empty() => {
            Refusal::Misunderstood(request.to_owned())
        }
        _ => Refusal::Rejected(rejected(&status, &told)),
    }
}

/// Returns what an internal error means. The API server writes `unable to transform key "..."` for
/// an object that it cannot decrypt (`storage.NewInternalError`), and the gRPC code if its plugin
/// had no answer.
fn internal(status: &Status, told: &str, request: &str) -> Refusal {
    let text = status.message.as_str();
    let is_passing =
        ["Unavailable", "DeadlineExceeded", "ResourceExhausted", "Canceled", "Aborted"]
            .iter()
            .any(|code| text.contains(&format!("code = {code}")))
            || text.contains("etcdserver: ")
            || text.contains("context deadline exceeded");
    if is_passing {
        return Refusal::Unavailable(format!("{told} to {request}"));
    }
    if let Some(key) = between(text, "unable to transform key \"", "\"") {
        return Refusal::Unreadable(key);
    }
    if UNREADABLE.iter().any(|said| text.contains(said)) {
        return Refusal::Unreadable(String::new());
    }
    if status.reason == "StorageReadError" || text.contains("StorageError: corrupt object") {
        let key = status.details.causes.first().map(|cause| bounded(&cause.field));
        return Refusal::Unreadable(key.unwrap_or_default());
    }
    Refusal::Internal(told.to_owned())
}

/// Returns the fields that a validation names, without their values.
fn rejected(status: &Status, told: &str) -> String {
    let fields: Vec<String> = status
        .details
        .causes
        .iter()
        .take(3)
        .filter(|cause| !cause.field.is_empty())
        .map(|cause| format!("{} ({})", bounded(&cause.field), bounded(&cause.reason)))
        .collect();
    let reason = bounded(&status.reason);
    let reason = if reason.is_empty() { String::new() } else { format!(" {reason}") };
    if fields.is_empty() {
        format!("the API server refuses it with {told}{reason}")
    } else {
        format!("the API server refuses it with {told}{reason}: {}", fields.join(", "))
    }
}

fn pause(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1)).clamp(Duration::from_secs(1), MAX_PAUSE)
}

fn between(text: &str, before: &str, after: &str) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    let (name, _) = rest.split_once(after)?;
    Some(bounded(name))
}

/// Returns the printable part of a name, of at most [`MAX_NAME`] characters.
fn bounded(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(code: u16, body: &str) -> Refusal {
        let code = StatusCode::from_u16(code).unwrap();
        refusal(code, &HeaderMap::new(), body.as_bytes(), "patch secrets")
    }

    fn status(message: &str) -> String {
        serde_json::json!({"kind": "Status", "message": message}).to_string()
    }

    #[test]
    fn a_webhook_is_named_whatever_its_code() {
        for (code, message, said) in [
            (403, "admission webhook \"w.x.y\" denied the request: password=hunter2", "denies it"),
            (400, "admission webhook \"w.x.y\" denied the request: password=hunter2", "denies it"),
            (500, "Internal error occurred: failed calling webhook \"w.x.y\": hunter2", "fails"),
        ] {
            let Refusal::Rejected(why) = meant(code, &status(message)) else { panic!("{code}") };
            assert!(
                why.contains("w.x.y") && why.contains(said) && !why.contains("hunter2"),
                "{why}"
            );
        }
    }

    #[test]
    fn a_missing_right_is_not_a_webhook() {
        let told = "secrets \"a\" is forbidden: User \"u\" cannot patch resource \"secrets\" in API \
                    group \"\" in the namespace \"default\"";
        assert_eq!(meant(403, &status(told)), Refusal::Forbidden("patch secrets".to_owned()));
    }

    #[test]
    fn one_object_that_cannot_be_stored_is_no_outage_and_no_missing_right() {
        let large = status("etcdserver: request is too large");
        assert!(matches!(meant(500, &large), Refusal::Rejected(why) if why.contains("too large")));
        let policy = "secrets \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' \
                      denied request: the label cannot be changed";
        assert!(matches!(meant(403, &status(policy)), Refusal::Rejected(_)));
    }

    #[test]
    fn an_object_is_gone_only_if_the_answer_names_it() {
        let gone = r#"{"kind":"Status","reason":"NotFound","details":{"name":"a"}}"#;
        assert_eq!(meant(404, gone), Refusal::Gone);
        assert!(matches!(meant(404, "404 page not found"), Refusal::Unavailable(_)));
    }

    #[test]
    fn an_unreadable_object_is_not_an_outage_of_the_plugin() {
        let lost = "Internal error occurred: unable to transform key \"/registry/secrets/a/b\": \
                    failed to decrypt DEK, error: rpc error: code = Unknown desc = gone";
        assert_eq!(
            meant(500, &status(lost)),
            Refusal::Unreadable("/registry/secrets/a/b".to_owned())
        );
        let one = "Internal error occurred: cipher: message authentication failed";
        assert_eq!(meant(500, &status(one)), Refusal::Unreadable(String::new()));
        let away = lost.replace("Unknown", "Unavailable");
        assert!(matches!(meant(500, &status(&away)), Refusal::Unavailable(_)));
    }

    #[test]
    fn a_validation_names_its_fields_and_no_values() {
        let body = r#"{"kind":"Status","reason":"Invalid","message":"data: Invalid value: \"hunter2\"",
            "details":{"name":"a","causes":[{"reason":"FieldValueInvalid","message":"hunter2","field":"data"}]}}"#;
        let Refusal::Rejected(why) = meant(422, body) else { panic!() };
        assert!(
            why.ends_with("422 Unprocessable Entity Invalid: data (FieldValueInvalid)"),
            "{why}"
        );
    }

    #[test]
    fn an_old_position_comes_with_a_new_one() {
        let body = r#"{"kind":"Status","reason":"Expired","metadata":{"continue":"next"}}"#;
        assert_eq!(meant(410, body), Refusal::Expired { again: Some("next".to_owned()) });
        assert_eq!(meant(410, "{}"), Refusal::Expired { again: None });
    }

    #[test]
    fn a_pause_is_bounded() {
        for (value, seconds) in [("5", 5), ("0", 1), ("86400", 60), ("soon", 1)] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            assert_eq!(
                refusal(StatusCode::TOO_MANY_REQUESTS, &headers, b"", "list secrets"),
                Refusal::Busy(Duration::from_secs(seconds))
            );
        }
    }

    #[test]
    fn a_full_database_stops_the_work() {
        assert_eq!(meant(500, &status("etcdserver: mvcc: database space exceeded")), Refusal::Full);
    }

    #[test]
    fn bytes_that_are_no_status_are_an_error_of_the_server() {
        for body in ["", "\u{0}", "[]", "{\"details\":7}", "null"] {
            assert_eq!(meant(500, body), Refusal::Internal("500 Internal Server Error".to_owned()));
        }
    }
}
