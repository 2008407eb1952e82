//! The settings of `serve`, as plain values. Defaults are already applied.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::Uri;

use super::{
    commands::{KeeperCommand, Work},
    error::ConfigError,
    keepers::{self, KeeperSettings},
    reading::Reading,
    sources::Sources,
};
use crate::{
    adapters::{
        grpc::{address::SocketAddress, incoming::PeerPolicy},
        telemetry::{
            audit::{AuditPlace, OnLoss},
            logging::{Form, Level},
        },
    },
    domain::{
        health::OutagePolicy,
        key::KekVersion,
        key_id::{KEY_ID_MAX, Lineage},
    },
};

/// The longest rotation delay. Every node reads the key hundreds of times within this time.
const ROTATION_DELAY_MAX: Duration = Duration::from_hours(24);

/// Everything that `serve` needs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address of the socket.
    pub listen: SocketAddress,
    /// The peers that may connect to the socket.
    pub peers: PeerPolicy,
    /// The settings of the keeper.
    pub keeper: Arc<dyn KeeperSettings>,
    /// The settings that key ids depend on.
    pub identity: IdentitySettings,
    /// Whether objects that other plugins wrote are decrypted too.
    pub legacy_decrypt: bool,
    /// What `Status` answers during an outage.
    pub outage_policy: OutagePolicy,
    /// How long an outage may last before `Status` reports it.
    pub outage_grace: Duration,
    /// The address of the probes. `None` when they are switched off.
    pub health: Option<SocketAddr>,
    /// The address of the metrics. `None` when they are switched off.
    pub metrics: Option<SocketAddr>,
    /// Whether the metrics include the metrics of the process.
    pub runtime_metrics: bool,
    /// The place of the audit log, and what a lost entry causes. `None` without an audit log.
    pub audit: Option<(AuditPlace, OnLoss)>,
    /// The level of the log.
    pub log_level: Level,
    /// The format of the log.
    pub log_form: Form,
    /// The address of the collector of traces, `http://HOST:PORT`.
    pub traces: Option<String>,
    /// Whether the process restricts itself to what it needs.
    pub sandbox: bool,
    /// What was ignored in the configuration, for the log.
    pub warnings: Vec<String>,
}

/// The settings that decide key ids and when they change.
#[derive(Clone, Debug)]
pub struct IdentitySettings {
    /// The lineage that the operator named. `None` means that the key's place is the lineage.
    pub lineage: Option<Lineage>,
    /// How often the operator went back to an older KEK.
    pub generation: u16,
    /// The key ids from before a re-import, and the versions that decrypt their objects.
    pub accepted: BTreeMap<String, KekVersion>,
    /// The age at which a version begins to write.
    pub rotation_delay: Duration,
}

/// The flags of HashiCorp's plugin for its logging library that have no effect here.
const IGNORED: [&str; 3] = ["zap-devel", "zap-stacktrace-level", "zap-time-encoding"];

impl Settings {
    /// Reads the settings from `sources`.
    ///
    /// # Errors
    /// All errors of the configuration, in the order of the flags.
    pub fn read(sources: &Sources) -> Result<Self, Vec<ConfigError>> {
        let mut reading = Reading::new(sources);
        let settings = Self::all(&mut reading, sources);
        match settings {
            Some(settings) if reading.errors.is_empty() => Ok(settings),
            _ => Err(reading.errors),
        }
    }

    fn all(reading: &mut Reading<'_>, sources: &Sources) -> Option<Self> {
        let listen = reading.parsed("listen-address", SocketAddress::parse);
        let allowed = allowed_uids(reading);
        let keeper = keepers::read(reading);
        let identity = identity(reading);
        let legacy_decrypt = reading.boolean("legacy-decrypt");
        let outage_policy = reading.parsed("outage-policy", |text| match text {
            "stop-writes" => Ok(OutagePolicy::StopWrites),
            "keep-writing" => Ok(OutagePolicy::KeepWriting),
            _ => Err(format!("{text:?} is not a valid policy; write stop-writes or keep-writing")),
        });
        let grace = (Duration::ZERO, Duration::from_mins(10));
        let outage_grace = reading.duration("outage-grace", grace.0, grace.1);
        let health_port = reading.port("health-port");
        let health_address = reading.parsed("health-address", |text| {
            text.parse::<IpAddr>().map_err(|_source| {
                format!("{text:?} is not a valid IP address; write for example 127.0.0.1 or ::1")
            })
        });
        let metrics_port = reading.port("metrics-port");
        let disabled = reading.boolean("disable-runtime-metrics");
        let audit = reading.parsed("audit-log", AuditPlace::parse);
        let on_loss = reading.parsed("audit-on-loss", OnLoss::parse);
        let older = reading.given("log-level") > reading.given("zap-log-level");
        let level = if older { "log-level" } else { "zap-log-level" };
        let log_level = reading.parsed(level, |text| {
            Level::parse(text).ok_or_else(|| {
                format!(
                    "{text:?} is not a valid log level; write error, warn, info, debug or trace"
                )
            })
        });
        let log_form = reading.parsed("zap-encoder", |text| match text {
            "json" => Ok(Form::Json),
            "console" => Ok(Form::Console),
            _ => Err(format!("{text:?} is not a valid format; write json or console")),
        });
        let ignored = IGNORED.into_iter().filter(|name| reading.given(name).is_some());
        let ignored: Vec<_> = ignored
            .map(|name| format!("--{name} is ignored: the log has no such setting; leave it out"))
            .collect();
        let traces = reading.parsed("otlp-endpoint", collector);
        let no_sandbox = reading.boolean("no-sandbox");
        reading.parsed("output", |text| match text {
            "text" | "json" => Ok(()),
            _ => Err(format!("{text:?} is not a valid format; write text or json")),
        });
        let listen = listen?;
        Some(Self {
            peers: match (&listen, allowed?) {
                (SocketAddress::File(_), allowed) if allowed.is_empty() => PeerPolicy::FileMode,
                (_, allowed) => PeerPolicy::Uids(allowed),
            },
            listen,
            keeper: keeper?,
            identity: identity?,
            legacy_decrypt: legacy_decrypt?,
            outage_policy: outage_policy?,
            outage_grace: outage_grace?,
            health: health_port?.zip(Some(health_address?)).map(|(port, ip)| (ip, port).into()),
            metrics: metrics_port?.map(|port| (Ipv4Addr::LOCALHOST, port).into()),
            runtime_metrics: !disabled?,
            audit: audit?.zip(on_loss),
            log_level: log_level?,
            log_form: log_form?,
            traces: traces?,
            sandbox: !no_sandbox?,
            warnings: sources.warnings.iter().cloned().chain(ignored).collect(),
        })
    }
}

/// Returns the work of `command`, with the settings of `sources`.
///
/// # Errors
/// All errors of the configuration.
pub fn work(sources: &Sources, command: &KeeperCommand) -> Result<Work, Vec<ConfigError>> {
    let mut reading = Reading::new(sources);
    match (command.read)(&mut reading) {
        Some(work) if reading.errors.is_empty() => Ok(work),
        _ => Err(reading.errors),
    }
}

/// Returns the policy that this program needs at its keeper, in the keeper's own language.
///
/// # Errors
/// All errors of the flags that name the key.
pub fn policy(sources: &Sources) -> Result<String, Vec<ConfigError>> {
    let mut reading = Reading::new(sources);
    let policy = keepers::wanted(&mut reading).and_then(|kind| kind.policy(&mut reading));
    policy.filter(|_| reading.errors.is_empty()).ok_or(reading.errors)
}

/// Reads `http://HOST:PORT`. Only plain http is accepted, because the collector runs on the same
/// node, as for kube-apiserver.
fn collector(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let is_plain = |uri: &Uri| {
        uri.scheme_str() == Some("http")
            && uri.port().is_some()
            && uri.path() == "/"
            && uri.query().is_none()
            && uri.authority().is_some_and(|to| !to.as_str().contains('@'))
    };
    let uri = text.parse().ok().filter(is_plain);
    uri.map(|_| Some(text.to_owned())).ok_or_else(|| {
        format!("{text:?} is not a valid address of a collector; write http://HOST:PORT (usually port 4317)")
    })
}

fn allowed_uids(reading: &mut Reading<'_>) -> Option<BTreeSet<u32>> {
    let mut uids = BTreeSet::new();
    let mut all_good = true;
    for text in reading.texts("allowed-uid") {
        if let Ok(uid) = text.parse() {
            uids.insert(uid);
        } else {
            reading.wrong(
                "allowed-uid",
                format!("{text:?} is not a valid uid; write a number such as 0"),
            );
            all_good = false;
        }
    }
    all_good.then_some(uids)
}

fn identity(reading: &mut Reading<'_>) -> Option<IdentitySettings> {
    let rotation_delay = reading.duration("rotation-delay", Duration::ZERO, ROTATION_DELAY_MAX);
    let lineage = match reading.text("key-lineage") {
        "" => Some(None),
        _ => reading
            .parsed("key-lineage", |text| Lineage::named(text).map_err(|error| error.to_string()))
            .map(Some),
    };
    let generation = reading.parsed("key-generation", |text| {
        text.parse().ok().filter(|n| *n < 1_000).ok_or_else(|| {
            format!("{text:?} is not a valid generation; write a number from 0 to 999")
        })
    });
    let accepted = accepted_ids(reading);
    Some(IdentitySettings {
        lineage: lineage?,
        generation: generation?,
        accepted: accepted?,
        rotation_delay: rotation_delay?,
    })
}

fn accepted_ids(reading: &mut Reading<'_>) -> Option<BTreeMap<String, KekVersion>> {
    let mut accepted = BTreeMap::new();
    let mut all_good = true;
    for text in reading.texts("accept-key-id") {
        let pair = text.rsplit_once('=').and_then(|(id, version)| {
            let fits = (1..=KEY_ID_MAX).contains(&id.len());
            Some((id, KekVersion::parse(version)?)).filter(|_| fits)
        });
        if let Some((id, version)) = pair {
            accepted.insert(id.to_owned(), version);
        } else {
            reading.wrong("accept-key-id", format!("{text:?} is not valid; write ID=VERSION"));
            all_good = false;
        }
    }
    all_good.then_some(accepted)
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
