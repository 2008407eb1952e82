//! Reads the metrics of an API server about its KMS providers.
//!
//! `apiserver_envelope_encryption_key_id_hash_total` is not read. It only grows, and keeps ids that
//! are no longer used (kubernetes/kubernetes#127772, #136354). The times of the last use say more.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::jiff::fmt::rfc2822;
use kube::{Client, client::Body};
use vault_kube_kms::{
    adapters::system::clock::SystemClock, domain::time::UnixTime, ports::clock::Clock as _,
};

use super::kubeconfig::{self, unusable};
use crate::{
    domain::{
        problem::Problem,
        rotation::{ApiServer, Use},
    },
    ports::source::Source,
};

/// The longest time for the whole answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer, in bytes.
const ANSWER_MAX: usize = 64 << 20;

/// The largest answer of a health check, in bytes.
const READYZ_MAX: usize = 64 << 10;

/// Most series that are kept of one metric. An API server shows at most 100 ids.
const SERIES_MAX: usize = 1_000;

const WRITTEN: &str = "apiserver_envelope_encryption_key_id_hash_last_timestamp_seconds";
const TOLD: &str = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds";
const SEEDS: &str = "apiserver_envelope_encryption_dek_source_cache_size";
const START: &str = "process_start_time_seconds";

/// The metrics of one API server.
#[derive(Clone)]
pub struct ApiServerMetrics {
    name: String,
    client: Client,
}

impl std::fmt::Debug for ApiServerMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServerMetrics").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Returns why a request was not sent. The library's error of a login shows the output of the login program,
/// which can contain a token.
fn unsent(error: &kube::Error) -> String {
    match error {
        kube::Error::Auth(_) => {
            "the login of the kubeconfig fails (exec, token file or auth provider)".to_owned()
        }
        other => other.to_string(),
    }
}

impl ApiServerMetrics {
    /// Makes a client for the API server that `which` names, with the credentials of `file`
    /// or, without it, of the file that kubectl uses. `which` is a URL, for which the current context
    /// has the credentials, or the name of a context. `None` stands for the current context.
    ///
    /// # Errors
    /// `kubeconfig-unusable` when the file or `which` cannot be used.
    pub async fn of(which: Option<&str>, file: Option<&Path>) -> Result<Self, Problem> {
        let (url, context) = match which {
            Some(which) if which.contains("://") => {
                (Some(which.parse::<Uri>().map_err(|error| unusable(file, &error))?), None)
            }
            context => (None, context.map(str::to_owned)),
        };
        let mut config = kubeconfig::read(file, context.clone()).await?;
        if let Some(url) = url {
            config.cluster_url = url;
        }
        config.connect_timeout = Some(TIMEOUT);
        config.read_timeout = Some(TIMEOUT);
        let name = context.unwrap_or_else(|| config.cluster_url.to_string());
        let client = Client::try_from(config).map_err(|error| unusable(file, &error))?;
        Ok(Self { name: name.trim_end_matches('/').to_owned(), client })
    }

    /// Asks whether the KMS providers of the API server work. The inner error is its answer.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub async fn kms_providers(&self) -> Result<Result<(), String>, String> {
        let ask = async {
            let request = Request::get("/readyz/kms-providers").body(Body::empty());
            let request = request.map_err(|error| error.to_string())?;
            let response = self.client.send(request).await.map_err(|error| unsent(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), READYZ_MAX).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            let text = String::from_utf8_lossy(&body).replace(char::is_control, " ");
            Ok(if status == StatusCode::OK { Ok(()) } else { Err(format!("{status}: {text}")) })
        };
        let limit = format!("no answer within {} s", TIMEOUT.as_secs());
        tokio::time::timeout(TIMEOUT, ask).await.unwrap_or(Err(limit))
    }

    async fn get(&self) -> Result<ApiServer, Problem> {
        let fails = |error: &dyn std::fmt::Display| {
            Problem::new(
                "api-server-unreachable",
                error,
                "see whether it runs, and whether the kubeconfig is of its cluster",
            )
        };
        let request = Request::get("/metrics").header(header::ACCEPT, "text/plain");
        let request = request.body(Body::empty()).map_err(|error| fails(&error))?;
        let response = self.client.send(request).await.map_err(|error| fails(&unsent(&error)))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
                return Err(Problem::new(
                    "metrics-forbidden",
                    format!("it answers /metrics with {}", response.status()),
                    "use a user who may get the non-resource URL /metrics",
                ));
            }
            status => return Err(fails(&format!("it answers /metrics with {status}"))),
        }
        let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        let now = date.and_then(|date| rfc2822::parse(date).ok()).map_or_else(
            || SystemClock::new().wall(),
            |date| UnixTime::from_millis(date.timestamp().as_millisecond()),
        );
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| {
            fails(&format!("its metrics cannot be read (limit {ANSWER_MAX} bytes): {error}"))
        })?;
        Ok(parse(&String::from_utf8_lossy(&body.to_bytes()), now))
    }
}

#[async_trait]
impl Source<ApiServer> for ApiServerMetrics {
    fn name(&self) -> &str {
        &self.name
    }

    async fn ask(&self) -> Result<ApiServer, Problem> {
        tokio::time::timeout(TIMEOUT, self.get()).await.unwrap_or_else(|_elapsed| {
            Err(Problem::new(
                "api-server-unreachable",
                format!("it did not answer within {} s", TIMEOUT.as_secs()),
                "see whether it runs, and whether this machine reaches it",
            ))
        })
    }
}

/// Reads metrics in the text format of Prometheus. Skips the lines that it does not know.
fn parse(text: &str, now: UnixTime) -> ApiServer {
    let mut server = ApiServer { now, ..ApiServer::default() };
    let (mut identity, mut start) = (None, None);
    for line in text.lines() {
        let end = line.find(['{', ' ']).unwrap_or(line.len());
        let Some((name, rest)) = line.split_at_checked(end) else { continue };
        if ![WRITTEN, TOLD, SEEDS, START].contains(&name) {
            continue;
        }
        let Some((labels, value)) = series(rest) else { continue };
        let label = |name: &str| {
            let of = labels.iter().find(|(label, _)| label == name);
            of.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let Ok(since) = Duration::try_from_secs_f64(value) else { continue };
        let at = UnixTime::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        let used = || Use { provider: label("provider_name"), hash: label("key_id_hash"), at };
        match name {
            WRITTEN if label("transformation_type") == "to_storage" => server.written.push(used()),
            TOLD => {
                let told_to = label("apiserver_id_hash");
                identity = identity.or((!told_to.is_empty()).then_some(told_to));
                server.told.push(used());
            }
            SEEDS => server.seeds.push((label("provider_name"), since.as_secs())),
            START => start = Some(value),
            _ => {}
        }
        if server.written.len().max(server.told.len()).max(server.seeds.len()) >= SERIES_MAX {
            break;
        }
    }
    server.process = identity.zip(start).map(|(identity, start)| format!("{identity} {start}"));
    server
}

/// The labels of a series, by name.
type Labels = Vec<(String, String)>;

/// Reads the labels and the value of a series: `{name="value",...} number`, or ` number`.
fn series(text: &str) -> Option<(Labels, f64)> {
    let mut labels = Labels::new();
    let mut rest = text;
    if let Some(inner) = text.strip_prefix('{') {
        rest = inner;
        while let Some((name, after)) = rest.split_once("=\"") {
            if name.contains(['}', ' ']) {
                return None;
            }
            let mut value = String::new();
            let mut chars = after.chars();
            loop {
                match chars.next()? {
                    '"' => break,
                    '\\' => value.push(match chars.next()? {
                        'n' => '\n',
                        escaped => escaped,
                    }),
                    plain => value.push(plain),
                }
            }
            labels.push((name.trim_start_matches(',').to_owned(), value));
            rest = chars.as_str();
            if rest.starts_with('}') {
                break;
            }
        }
        rest = rest.strip_prefix(',').unwrap_or(rest).strip_prefix('}')?;
    }
    // A time may follow the value.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((labels, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = r#"# HELP process_start_time_seconds Start time.
process_start_time_seconds 1.76722560012e+09
apiserver_envelope_encryption_key_id_hash_last_timestamp_seconds{apiserver_id_hash="sha256:aa",key_id_hash="sha256:01",provider_name="vault-kube-kms",transformation_type="from_storage"} 1.7e+09
apiserver_envelope_encryption_key_id_hash_last_timestamp_seconds{apiserver_id_hash="sha256:aa",key_id_hash="sha256:02",provider_name="vault-kube-kms",transformation_type="to_storage"} 1.7672256005e+09
apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds{apiserver_id_hash="sha256:aa",key_id_hash="sha256:02",provider_name="a\"b,}",} 1.767225601e+09 5
apiserver_envelope_encryption_key_id_hash_total{key_id_hash="sha256:99",transformation_type="to_storage"} 7
apiserver_envelope_encryption_dek_source_cache_size{provider_name="vault-kube-kms"} 3
"#;

    #[test]
    fn reads_writes_statuses_and_seeds() {
        let server = parse(METRICS, UnixTime::from_secs(9));
        let used = |provider: &str, millis| Use {
            provider: provider.to_owned(),
            hash: "sha256:02".to_owned(),
            at: UnixTime::from_millis(millis),
        };
        assert_eq!(server.written, [used("vault-kube-kms", 1_767_225_600_500)]);
        assert_eq!(server.told, [used("a\"b,}", 1_767_225_601_000)]);
        assert_eq!(server.seeds, [("vault-kube-kms".to_owned(), 3)]);
        assert_eq!(server.process.as_deref(), Some("sha256:aa 1767225600.12"));
    }

    #[test]
    fn an_older_api_server_has_no_identity() {
        let text = METRICS.replace("apiserver_id_hash=\"sha256:aa\",", "");
        assert_eq!(parse(&text, UnixTime::default()).process, None);
    }

    #[test]
    fn skips_lines_that_are_not_whole() {
        for end in 0..METRICS.len() {
            parse(METRICS.get(..end).unwrap(), UnixTime::default());
        }
        for value in ["NaN", "-1", "+Inf", "1e300", "", "x"] {
            let server = parse(&format!("{TOLD}{{a=\"b\"}} {value}\n"), UnixTime::default());
            assert_eq!(server.told, [], "{value}");
        }
    }
}
