//! Reads what a JWT says about itself: issuer, audience and times (RFC 7519, section 4.1). Only the
//! keeper verifies the signature. The claims serve errors, metrics and warnings.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::domain::time::UnixTime;

/// The most characters of one claim in a text.
const CLAIM_MAX: usize = 100;

/// The claims that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The issuer. Empty if the JWT names none.
    pub issuer: String,
    /// The audiences.
    pub audiences: Vec<String>,
    /// When the JWT expires.
    pub end: Option<UnixTime>,
    /// When the JWT becomes valid.
    start: Option<UnixTime>,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    iss: serde_json::Value,
    #[serde(default)]
    aud: serde_json::Value,
    #[serde(default)]
    exp: serde_json::Value,
    #[serde(default)]
    nbf: serde_json::Value,
}

impl Claims {
    /// Reads the claims of `jwt`, in the compact form with three parts. Returns `None` if the text
    /// does not have that form. A claim of another type than RFC 7519 gives counts as missing.
    #[must_use]
    pub fn read(jwt: &str) -> Option<Self> {
        let mut parts = jwt.split('.');
        let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
        let payload: Payload = serde_json::from_slice(&json).ok()?;
        let audiences = match &payload.aud {
            serde_json::Value::Array(all) => all.iter().filter_map(text).collect(),
            one => text(one).into_iter().collect(),
        };
        Some(Self {
            issuer: text(&payload.iss).unwrap_or_default(),
            audiences,
            end: time(&payload.exp),
            start: time(&payload.nbf),
        })
    }

    /// Describes the claims at `now`, the time of this node, such as `by its own claims, the JWT of
    /// issuer "https://i" for audience "vault" expired 60 s ago`.
    #[must_use]
    pub fn describe(&self, now: UnixTime) -> String {
        let issuer = match self.issuer.as_str() {
            "" => String::new(),
            issuer => format!(" of issuer {}", quoted(issuer)),
        };
        let audiences: Vec<_> = self.audiences.iter().take(4).map(|one| quoted(one)).collect();
        let audience = match audiences.as_slice() {
            [] => " for no audience".to_owned(),
            all => format!(" for audience {}", all.join(" and ")),
        };
        let validity = match (self.start, self.end) {
            (Some(start), _) if start > now => {
                format!("is not valid for another {} s", seconds(start.since(now)))
            }
            (_, Some(end)) if end <= now => format!("expired {} s ago", seconds(now.since(end))),
            (_, Some(end)) => format!("is valid for {} s", seconds(end.since(now))),
            (_, None) => "has no expiry".to_owned(),
        };
        format!("by its own claims and this node's clock, the JWT{issuer}{audience} {validity}")
    }
}

fn text(value: &serde_json::Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// Reads a number of seconds since the epoch, with or without a fraction.
fn time(value: &serde_json::Value) -> Option<UnixTime> {
    let whole = value.as_i64().or_else(|| {
        let fraction = value.as_f64()?.floor();
        format!("{fraction:.0}").parse().ok()
    });
    whole.map(UnixTime::from_secs)
}

fn seconds(time: Duration) -> u64 {
    time.as_secs()
}

/// Returns `text` in quotes, cut to [`CLAIM_MAX`] characters. Control characters are escaped.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(CLAIM_MAX).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn describes_the_validity_by_the_clock_of_the_node() {
        let now = UnixTime::from_secs(1_000);
        for (payload, expected) in [
            (
                r#"{"iss":"https://i","aud":"vault","exp":940}"#,
                "issuer \"https://i\" for audience \"vault\" expired 60 s ago",
            ),
            (
                r#"{"aud":["a","b"],"exp":1050}"#,
                "the JWT for audience \"a\" and \"b\" is valid for 50 s",
            ),
            (r#"{"exp":1050.9}"#, "the JWT for no audience is valid for 50 s"),
            (r#"{"nbf":1010,"exp":1050}"#, "is not valid for another 10 s"),
            (r#"{"aud":7,"exp":"soon","iss":null}"#, "the JWT for no audience has no expiry"),
            (r#"{"exp":1e300}"#, "has no expiry"),
            ("{\"iss\":\"a\\nb\"}", "issuer \"a\\nb\""),
        ] {
            let text = Claims::read(&jwt(payload)).unwrap().describe(now);
            assert!(text.contains(expected), "{payload}: {text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn reads_nothing_of_a_text_that_is_not_a_jwt() {
        for text in ["", "a.b", "a.b.c", "e30.e30", "e30.e30.x.y", "e30.!.x", "e30.eHg.x"] {
            assert_eq!(Claims::read(text), None, "{text}");
        }
    }
}
