//! Tests of the metrics page in the text format of Prometheus.

use super::*;
use crate::{
    adapters::system::clock::SystemClock,
    domain::{
        error::Code,
        key::KekVersion,
        key_id::{KeyIdentity, Lineage},
        time::UnixTime,
    },
    ports::{keeper::Labels, telemetry::Expiring},
};

const SECRET_ID: Expiring = Expiring::new("secret-id", "the secret ID", "write a new one");
const AUTHORITIES: Expiring = Expiring::new("authorities", "a certificate", "renew it");

const LABELS: Labels =
    Labels { codes: &[Code::OfKeeper("own-code")], retry_reasons: &["lost", "unsent"] };

fn metrics() -> Metrics {
    Metrics::new("keeper:1", LABELS, false, Arc::new(SystemClock::new())).unwrap()
}

/// Returns the value of `series`, or `None` when the page does not have it.
fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    let page = metrics.text().unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

/// An alert on `increase()` does not fire for a series whose first value is 1.
#[test]
fn counters_are_0_from_the_start() {
    let metrics = metrics();
    let mut series = vec![
        "vault_kube_kms_log_lines_dropped_total".to_owned(),
        "vault_kube_kms_incidents_total{reason=\"key-replaced\"}".to_owned(),
        "vault_kube_kms_incidents_total{reason=\"key-rolled-back\"}".to_owned(),
    ];
    for name in
        ["authority_rewritten", "coalesced", "legacy_reads", "logins", "peers_denied", "renewals"]
    {
        series.push(format!("vault_kube_kms_{name}_total"));
    }
    for code in Code::ALL.iter().chain(LABELS.codes) {
        series.push(format!("vault_kube_kms_session_failures_total{{code=\"{code}\"}}"));
    }
    for reason in LABELS.retry_reasons {
        series.push(format!("vault_kube_kms_retries_total{{reason=\"{reason}\"}}"));
    }
    for operation in ["login", "read", "renew", "write"] {
        for name in ["vso_client_operations_total", "vso_client_operations_errors_total"] {
            let labels = format!("operation=\"{operation}\",vault_connection=\"keeper:1\"");
            series.push(format!("{name}{{{labels}}}"));
        }
    }
    let absent: Vec<_> =
        series.iter().filter(|series| value(&metrics, series) != Some(0.0)).collect();
    assert!(absent.is_empty(), "{absent:#?} in {}", metrics.text().unwrap());
}

#[test]
fn counters_grow_from_0() {
    let metrics = metrics();
    let error = KmsError::new(Code::KeyReplaced, "scripted", "none");
    metrics.incident(&error);
    metrics.peer_denied();
    let incidents = "vault_kube_kms_incidents_total{reason=\"key-replaced\"}";
    assert_eq!(value(&metrics, incidents), Some(1.0));
    assert_eq!(value(&metrics, "vault_kube_kms_peers_denied_total"), Some(1.0));
}

#[test]
fn the_first_8_uids_have_series_of_their_own() {
    let metrics = metrics();
    for uid in (0..10).chain([0]) {
        metrics.called_by(uid, true);
    }
    metrics.called_by(1, false);
    let calls = |uid: &str, outcome: &str| {
        let labels = format!("outcome=\"{outcome}\",uid=\"{uid}\"");
        value(&metrics, &format!("vault_kube_kms_peer_calls_total{{{labels}}}"))
    };
    assert_eq!((calls("0", "ok"), calls("7", "ok")), (Some(2.0), Some(1.0)));
    assert_eq!((calls("1", "ok"), calls("1", "failed")), (Some(1.0), Some(1.0)));
    assert_eq!((calls("8", "ok"), calls("other", "ok")), (None, Some(2.0)));
}

#[test]
fn calls_are_timed_under_the_old_and_the_new_name() {
    let metrics = metrics();
    metrics.answered(Method::Decrypt, 0, Duration::from_micros(60));
    metrics.answered(Method::Decrypt, 4, Duration::from_secs(9));
    metrics.answered(Method::Status, 99, Duration::ZERO);
    let old = "rpc_server_duration_milliseconds_count{rpc_grpc_status_code=\"0\",\
               rpc_method=\"Decrypt\",rpc_service=\"v2.KeyManagementService\"}";
    assert_eq!(value(&metrics, old), Some(1.0));
    let name = "rpc_server_call_duration_seconds_bucket";
    let labels = "rpc_method=\"v2.KeyManagementService/Decrypt\",rpc_response_status_code=\"OK\",\
                  rpc_system_name=\"grpc\"";
    assert_eq!(value(&metrics, &format!("{name}{{{labels},le=\"0.00005\"}}")), Some(0.0));
    assert_eq!(value(&metrics, &format!("{name}{{{labels},le=\"0.0001\"}}")), Some(1.0));
    let labels = "error_type=\"DEADLINE_EXCEEDED\",\
                  rpc_method=\"v2.KeyManagementService/Decrypt\",\
                  rpc_response_status_code=\"DEADLINE_EXCEEDED\",rpc_system_name=\"grpc\"";
    assert_eq!(value(&metrics, &format!("{name}{{{labels},le=\"5\"}}")), Some(0.0));
    assert_eq!(value(&metrics, &format!("{name}{{{labels},le=\"10\"}}")), Some(1.0));
    assert!(metrics.text().unwrap().contains("rpc_response_status_code=\"UNKNOWN\""));
}

#[test]
fn shows_only_known_expiries() {
    let metrics = metrics();
    assert!(!metrics.text().unwrap().contains("expiry_timestamp"));
    let series = "vault_kube_kms_expiry_timestamp_seconds{what=\"secret-id\"}";
    metrics.expires(SECRET_ID, Some(UnixTime::from_secs(1_800_000_000)));
    metrics.expires(AUTHORITIES, Some(UnixTime::from_secs(1)));
    assert_eq!(value(&metrics, series), Some(1_800_000_000.0));
    metrics.expires(SECRET_ID, None);
    let page = metrics.text().unwrap();
    assert!(!page.contains("secret-id") && page.contains("what=\"authorities\""), "{page}");
}

/// Each rotation makes a new key id. The page must not grow with each rotation.
#[test]
fn shows_only_the_current_and_the_previous_key_id() {
    let metrics = metrics();
    let identity = KeyIdentity::new(Lineage::named("test").unwrap(), 0);
    for number in 1..100 {
        let version = KekVersion::new(number).unwrap();
        let key_id = identity.id_of(version, UnixTime::from_secs(number.into()));
        metrics.writing(&Writer { version, key_id });
    }
    let page = metrics.text().unwrap();
    let shown = page.lines().filter(|line| line.starts_with("vault_kube_kms_key_id_info{"));
    let mut values: Vec<_> = shown.map(|line| line.rsplit(' ').next().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, ["0", "1"]);
}

/// Dashboards read the names, types and units of Prometheus' client libraries.
#[test]
fn process_metrics_have_the_names_of_prometheus() {
    let metrics = Metrics::new("keeper:1", LABELS, true, Arc::new(SystemClock::new())).unwrap();
    let page = metrics.text().unwrap();
    let types = [
        ("process_cpu_seconds_total", "counter"),
        ("process_open_fds", "gauge"),
        ("process_max_fds", "gauge"),
        ("process_virtual_memory_bytes", "gauge"),
        ("process_resident_memory_bytes", "gauge"),
        ("process_start_time_seconds", "gauge"),
        ("process_threads", "gauge"),
    ];
    for (name, kind) in types {
        assert!(page.contains(&format!("# TYPE {name} {kind}\n")), "{name} in {page}");
    }
    let value = |series| value(&metrics, series).unwrap();
    let now = SystemClock::new().wall();
    let age = f64::from(u32::try_from(now.secs()).unwrap()) - value("process_start_time_seconds");
    assert!((-1.0..86_400.0).contains(&age), "started {age} s ago");
    assert!(value("process_cpu_seconds_total") >= 0.0);
    assert!(value("process_threads") >= 1.0);
    // Standard input, output and error are open.
    assert!((3.0..=value("process_max_fds")).contains(&value("process_open_fds")));
    let resident = value("process_resident_memory_bytes");
    assert!((65_536.0..value("process_virtual_memory_bytes")).contains(&resident), "{resident}");
}
