//! The settings of a server: plain values, nothing optional that has a default.

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
            logging::Level,
        },
    },
    domain::{
        health::OutagePolicy,
        key::KekVersion,
        key_id::{KEY_ID_MAX, Lineage},
    },
};

/// Longest rotation delay: by then every node has polled hundreds of times.
const ROTATION_DELAY_MAX: Duration = Duration::from_hours(24);

/// Everything `serve` needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The socket.
    pub listen: SocketAddress,
    /// Who may connect to it.
    pub peers: PeerPolicy,
    /// Who keeps the key.
    pub keeper: Arc<dyn KeeperSettings>,
    /// What makes key ids.
    pub identity: IdentitySettings,
    /// Read what other plugins wrote.
    pub legacy_decrypt: bool,
    /// What `Status` tells during an outage.
    pub outage_policy: OutagePolicy,
    /// After how long it does.
    pub outage_grace: Duration,
    /// Where probes are answered, unless switched off.
    pub health: Option<SocketAddr>,
    /// Where metrics are read, unless switched off.
    pub metrics: Option<SocketAddr>,
    /// Metrics of the process.
    pub runtime_metrics: bool,
    /// Where wraps and unwraps are recorded, unless nowhere, and what a loss does.
    pub audit: Option<(AuditPlace, OnLoss)>,
    /// How much is logged.
    pub log_level: Level,
    /// The collector of traces, if there is one.
    pub traces: Option<String>,
    /// Whether the process restricts itself to what it needs.
    pub sandbox: bool,
    /// What was ignored, for the log.
    pub warnings: Vec<String>,
}

/// What makes key ids, and when they change.
#[derive(Clone, Debug)]
pub struct IdentitySettings {
    /// The lineage that the operator named, instead of the key's place.
    pub lineage: Option<Lineage>,
    /// How often an older KEK was gone back to.
    pub generation: u16,
    /// Ids from before a re-import, and the versions that read them.
    pub accepted: BTreeMap<String, KekVersion>,
    /// The age at which a version begins to write.
    pub rotation_delay: Duration,
}

impl Settings {
    /// The settings that `sources` give.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the flags.
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
            _ => Err(format!("{text:?} is no policy; write stop-writes or keep-writing")),
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
            Level::parse(text).ok_or_else(|| format!("{text:?} is no log level; write info"))
        });
        let traces = reading.parsed("otlp-endpoint", collector);
        let no_sandbox = reading.boolean("no-sandbox");
        reading.parsed("output", |text| match text {
            "text" | "json" => Ok(()),
            _ => Err(format!("{text:?} is no form; write text or json")),
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
            traces: traces?,
            sandbox: !no_sandbox?,
            warnings: sources.warnings.clone(),
        })
    }
}

/// The work of `command`, as `sources` configure it.
///
/// # Errors
/// Everything that is wrong with what was given.
pub fn work(sources: &Sources, command: &KeeperCommand) -> Result<Work, Vec<ConfigError>> {
    let mut reading = Reading::new(sources);
    match (command.read)(&mut reading) {
        Some(work) if reading.errors.is_empty() => Ok(work),
        _ => Err(reading.errors),
    }
}

/// What this program must be granted at its keeper, in the keeper's own language.
///
/// # Errors
/// Everything that is wrong with what names the key.
pub fn policy(sources: &Sources) -> Result<String, Vec<ConfigError>> {
    let mut reading = Reading::new(sources);
    let policy = keepers::wanted(&mut reading).and_then(|kind| kind.policy(&mut reading));
    policy.filter(|_| reading.errors.is_empty()).ok_or(reading.errors)
}

/// Reads `http://HOST:PORT`. A collector stands on the node, as kube-apiserver's does.
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
        format!("{text:?} is no collector's address; write http://HOST:PORT (4317, most often)")
    })
}

fn allowed_uids(reading: &mut Reading<'_>) -> Option<BTreeSet<u32>> {
    let mut uids = BTreeSet::new();
    let mut all_good = true;
    for text in reading.texts("allowed-uid") {
        if let Ok(uid) = text.parse() {
            uids.insert(uid);
        } else {
            reading.wrong("allowed-uid", format!("{text:?} is no uid; write a number"));
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
        text.parse()
            .ok()
            .filter(|n| *n < 1_000)
            .ok_or_else(|| format!("{text:?} is not in 0 to 999"))
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
            reading.wrong("accept-key-id", format!("{text:?} is not of the form ID=VERSION"));
            all_good = false;
        }
    }
    all_good.then_some(accepted)
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
