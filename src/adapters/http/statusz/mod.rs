//! `/statusz`: how the process is, as a page for people and as JSON for machines. No secret is in
//! what it is made of.

mod page;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, Uri, header};
use http_body_util::Full;
use serde::Serialize;

/// Key versions that are shown at most, the newest ones.
pub const VERSIONS_MAX: usize = 100;

/// Why something is not well.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// The stable code.
    pub code: &'static str,
    /// What failed and why.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

/// One version of the key.
#[derive(Clone, Debug, Serialize)]
pub struct Version {
    /// Its number at the keeper.
    pub version: u32,
    /// Its public name.
    pub key_id: String,
    /// `writes`, `waits` (will write), `reads` or `archived`.
    pub role: &'static str,
    /// When the keeper made it; RFC 3339.
    pub created: String,
    /// From when on it may write; RFC 3339.
    pub writes_from: String,
}

/// The version that will write next.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Takeover {
    /// Its number.
    pub version: u32,
    /// In how many seconds.
    pub in_s: u64,
}

/// The session with the keeper.
#[derive(Clone, Debug, Serialize)]
pub struct Session {
    /// `open`, `starting` or `closed`.
    pub state: &'static str,
    /// How many logins there were, while it is open.
    pub logins: Option<u64>,
    /// Seconds until the token ends unless it is renewed; absent when it never does.
    pub token_left_s: Option<u64>,
    /// Why it is closed.
    pub problem: Option<Problem>,
}

/// An endpoint of the keeper.
#[derive(Clone, Debug, Serialize)]
pub struct Endpoint {
    /// Where it is.
    pub address: String,
    /// `closed`, `half-open` or `open`.
    pub breaker: &'static str,
    /// Whether it is asked first.
    pub preferred: bool,
    /// Why the last request to it failed, until one works.
    pub problem: Option<Problem>,
}

/// An error that was met.
#[derive(Clone, Debug, Serialize)]
pub struct LastError {
    /// What failed.
    pub what: &'static str,
    /// How.
    #[serde(flatten)]
    pub problem: Problem,
    /// When first; RFC 3339.
    pub first: String,
    /// When last; RFC 3339.
    pub last: String,
    /// How often.
    pub times: u64,
}

/// How the process is restricted.
#[derive(Clone, Debug, Serialize)]
pub struct Sandbox {
    /// Whether it is restricted at all (`--no-sandbox`).
    pub on: bool,
    /// The restrictions, each in a few words.
    pub in_force: Vec<String>,
    /// What is not restricted, and why.
    pub missing: Vec<String>,
}

/// How the process is.
#[derive(Clone, Debug, Serialize)]
pub struct Statusz {
    /// Name, version, commit, and whether it is a FIPS build.
    pub version: String,
    /// Whether the cryptographic module is in FIPS mode.
    pub fips: bool,
    /// When this was true; RFC 3339.
    pub now: String,
    /// Seconds since the process started.
    pub uptime_s: u64,
    /// What `Status` answers: `healthy`, `ailing` (it keeps writing) or `failing`.
    pub state: &'static str,
    /// Why it is not healthy.
    pub problem: Option<Problem>,
    /// `stop-writes` or `keep-writing`.
    pub outage_policy: &'static str,
    /// Seconds for which an outage changes nothing.
    pub outage_grace_s: u64,
    /// What it may use.
    pub sandbox: Sandbox,
    /// The newest key versions, newest first.
    pub versions: Vec<Version>,
    /// How many versions were ever seen.
    pub versions_seen: usize,
    /// What writes next.
    pub takeover: Option<Takeover>,
    /// Seconds since the key was last read.
    pub key_read_s_ago: Option<u64>,
    /// Seconds since the version that writes was last proven.
    pub proven_s_ago: Option<u64>,
    /// The session, for keepers that have one.
    pub session: Option<Session>,
    /// The keeper's endpoints, as they were given.
    pub endpoints: Vec<Endpoint>,
    /// The last errors, the latest first.
    pub last_errors: Vec<LastError>,
}

impl Statusz {
    /// JSON where it was asked for (`Accept: application/json`, `?format=json`), else the page.
    pub(super) fn answer(&self, uri: &Uri, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let (body, kind) = if wants_json(uri, headers) {
            // Text and numbers only, so it cannot fail.
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
