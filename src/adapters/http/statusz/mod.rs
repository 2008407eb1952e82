//! Serves `/statusz`: the state of the process, as a page for people and as JSON for machines. The
//! state contains no secret.

mod page;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, Uri, header};
use http_body_util::Full;
use serde::Serialize;

/// Why something does not work.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// The stable code.
    pub code: &'static str,
    /// What failed, and why.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

/// One version of the KEK.
#[derive(Clone, Debug, Serialize)]
pub struct Version {
    /// The number of the version at the keeper.
    pub version: u32,
    /// The `key_id` of the version.
    pub key_id: String,
    /// `writes`, `waits` (will write), `reads` or `archived`.
    pub role: &'static str,
    /// When the keeper created the version, in RFC 3339.
    pub created: String,
    /// When the version may write from, in RFC 3339.
    pub writes_from: String,
}

/// The next version to write.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Takeover {
    /// The number of the version.
    pub version: u32,
    /// Seconds until it writes.
    pub in_s: u64,
}

/// A credential or a certificate that expires.
#[derive(Clone, Debug, Serialize)]
pub struct Expiry {
    /// The value of the metric label `what`.
    pub what: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// When it expires, in RFC 3339.
    pub at: String,
    /// Seconds until then. 0 when it has expired.
    pub left_s: u64,
    /// Whether it must be replaced now.
    pub is_soon: bool,
}

/// The session with the keeper.
#[derive(Clone, Debug, Serialize)]
pub struct SessionStatus {
    /// The place of the login, such as `auth/jwt (jwt)`.
    pub login: String,
    /// `open`, `starting` or `closed`.
    pub state: &'static str,
    /// The number of logins so far. Absent unless the session is open.
    pub logins: Option<u64>,
    /// Seconds until the token expires if it is not renewed. Absent when it never expires.
    pub token_left_s: Option<u64>,
    /// Why the session is closed.
    pub problem: Option<Problem>,
}

/// An endpoint of the keeper.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointStatus {
    /// The URL of the endpoint.
    pub address: String,
    /// The state of its breaker: `closed`, `half-open` or `open`.
    pub breaker: &'static str,
    /// Whether requests go to it first.
    pub preferred: bool,
    /// Why the last request to it failed. Absent after a success.
    pub problem: Option<Problem>,
}

/// An error that has happened.
#[derive(Clone, Debug, Serialize)]
pub struct LastError {
    /// The operation that failed.
    pub what: &'static str,
    /// The error.
    #[serde(flatten)]
    pub problem: Problem,
    /// When it happened first, in RFC 3339.
    pub first: String,
    /// When it happened last, in RFC 3339.
    pub last: String,
    /// How often it happened.
    pub times: u64,
}

/// The sandbox of the process.
#[derive(Clone, Debug, Serialize)]
pub struct Sandbox {
    /// Whether the sandbox is on (off with `--no-sandbox`).
    pub on: bool,
    /// The restrictions, each in a few words.
    pub in_force: Vec<String>,
    /// What is not restricted, and why.
    pub missing: Vec<String>,
}

/// The state of the process.
#[derive(Clone, Debug, Serialize)]
pub struct Statusz {
    /// Name, version, commit, and whether it is a FIPS build.
    pub version: String,
    /// Whether the cryptographic module is in FIPS mode.
    pub fips: bool,
    /// The time of this state, in RFC 3339.
    pub now: String,
    /// A random text of this process. It shows when two addresses lead to one process.
    pub process: String,
    /// Seconds since the process started.
    pub uptime_s: u64,
    /// The outcome of `Status`: `healthy`, `ailing` (not healthy, but it keeps writing) or
    /// `failing`.
    pub state: &'static str,
    /// Why the process is not healthy.
    pub problem: Option<Problem>,
    /// `stop-writes` or `keep-writing`.
    pub outage_policy: &'static str,
    /// Seconds for which an outage has no effect.
    pub outage_grace_s: u64,
    /// The sandbox of the process.
    pub sandbox: Sandbox,
    /// The newest key versions, newest first.
    pub versions: Vec<Version>,
    /// The number of versions that this process has seen.
    pub versions_seen: usize,
    /// Seconds for which this process has written with the version that writes. Absent when no
    /// version may write.
    pub writing_s: Option<u64>,
    /// The next version to write. Absent when no change is due.
    pub takeover: Option<Takeover>,
    /// Seconds since the key was last read. Absent before the first read.
    pub key_read_s_ago: Option<u64>,
    /// Seconds since the writing version was last proven. Absent before the first proof.
    pub proven_s_ago: Option<u64>,
    /// The credentials and certificates that expire, the first to expire first.
    pub expiries: Vec<Expiry>,
    /// The session with the keeper. Absent for keepers without sessions.
    pub session: Option<SessionStatus>,
    /// The endpoints of the keeper, in the configured order.
    pub endpoints: Vec<EndpointStatus>,
    /// The last errors, newest first.
    pub last_errors: Vec<LastError>,
}

impl Statusz {
    /// Answers with JSON if the request asks for it (`Accept: application/json` or `?format=json`),
    /// else with the page.
    pub(super) fn answer(&self, uri: &Uri, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let (body, kind) = if wants_json(uri, headers) {
            // Cannot fail: the state has only text and numbers.
            (serde_json::to_vec_pretty(self).unwrap_or_default(), "application/json")
        } else {
            (page::page(self).into_string().into_bytes(), "text/html; charset=utf-8")
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        for (name, value) in [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "no-store"),
            (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

fn wants_json(uri: &Uri, headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    uri.query() == Some("format=json")
        || accepts.is_some_and(|accepts| accepts.starts_with("application/json"))
}

#[cfg(test)]
mod tests;
