//! The settings of a server: plain values, nothing optional that has a default.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use http::Uri;

pub use super::keeper::{KeeperSettings, VaultSettings};
use super::{error::ConfigError, keeper, reading::Reading, sources::Sources};
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
    pub keeper: KeeperSettings,
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
        let keeper = keeper::keeper(reading);
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

/// The key file that `local init` and `local rotate` work on.
///
/// # Errors
/// Everything that is wrong with what was given.
pub fn local_key_file(sources: &Sources) -> Result<PathBuf, Vec<ConfigError>> {
    let mut reading = Reading::new(sources);
    match keeper::local_key_file(&mut reading) {
        Some(path) if reading.errors.is_empty() => Ok(path),
        _ => Err(reading.errors),
    }
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
mod tests {
    use super::*;
    use crate::adapters::vault::{approle::AppRoleSettings, tls::Trust};

    #[test]
    fn a_collector_is_a_plain_address() {
        assert_eq!(collector(""), Ok(None));
        assert_eq!(collector("http://[::1]:4317"), Ok(Some("http://[::1]:4317".to_owned())));
        for text in ["https://c:4317", "c:4317", "http://c", "http://c:4317/v1", "http://a@c:4317"]
        {
            assert!(collector(text).is_err(), "{text}");
        }
    }

    fn read(line: &str) -> Result<Settings, Vec<ConfigError>> {
        let args: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        Settings::read(&Sources::collect(&args, []))
    }

    /// As OpenShift's operator writes them.
    const OPENSHIFT: &str = "-listen-address=unix:///var/run/kmsplugin/kms-1.sock \
        -vault-address=https://vault:8200 -transit-mount=transit -transit-key=my-key \
        -approle-role-id=r -approle-secret-id-path=/var/run/secrets/s -vault-namespace=admin \
        -tls-skip-verify --log-level=debug-extended";

    #[test]
    fn an_existing_manifest_is_read_as_it_is() {
        let settings = read(OPENSHIFT).unwrap();
        let KeeperSettings::Vault(vault) = settings.keeper else { panic!("not Vault") };
        assert_eq!(vault.client.tls.trust, Trust::Anybody);
        assert_eq!(vault.transit.key.to_string(), "transit/keys/my-key");
        assert_eq!(vault.approle.namespace.as_str(), "admin");
        assert_eq!(settings.log_level, Level::Trace);
        assert_eq!(settings.peers, PeerPolicy::FileMode);
    }

    #[test]
    fn all_errors_come_at_once_with_flag_and_origin() {
        let errors = read(
            "--vault-address=https://u:p@v --vault-key-path=a/../keys/k --listen-address=tcp://x \
             --outage-grace=soon --metrics-port=x --login-timeout=0s --nonsense --allowed-uid=me",
        )
        .unwrap_err();
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        for flag in [
            "nonsense",
            "listen-address",
            "allowed-uid",
            "vault-address",
            "vault-key-path",
            "approle-role-id",
            "login-timeout",
            "outage-grace",
            "metrics-port",
        ] {
            assert!(
                texts.iter().any(|t| t.starts_with(&format!("--{flag} ("))),
                "{flag}: {texts:#?}"
            );
        }
        assert_eq!(texts.len(), 9, "{texts:#?}");
        assert!(texts.iter().any(|t| t.contains("--approle-role-id (not given)")));
    }

    const KEY: &str = "--vault-address=https://v --vault-key-path=transit/keys/k";

    fn approle(line: &str) -> Result<AppRoleSettings, String> {
        match read(&format!("{KEY} {line}")).map(|settings| settings.keeper) {
            Ok(KeeperSettings::Vault(vault)) => Ok(vault.approle),
            Ok(KeeperSettings::Local(_)) => panic!("not Vault"),
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn a_secret_id_may_be_left_out_and_then_nothing_of_it_may_be_given() {
        let alone = approle("--approle-role-id=r").unwrap();
        assert_eq!((alone.secret_id_path, alone.login_timeout.as_secs()), (None, 30));
        let wrapped = approle("--approle-role-id=r --approle-secret-id-wrapped").unwrap_err();
        assert!(wrapped.contains("give --approle-secret-id-path"), "{wrapped}");
    }

    #[test]
    fn a_role_id_is_validated_wherever_it_is_given() {
        for file in ["", "--config=/dev/null"] {
            let args = format!("{KEY} {file}");
            let args: Vec<_> = args.split_whitespace().map(str::to_owned).collect();
            let args = [args, vec!["--approle-role-id=a b".to_owned()]].concat();
            let path = ("VAULT_KUBE_KMS_APPROLE_ROLE_ID_PATH".to_owned(), "/r".to_owned());
            let errors = Settings::read(&Sources::collect(&args, [path])).unwrap_err();
            assert!(errors.iter().any(|error| error.flag == "approle-role-id"), "{errors:?}");
        }
    }

    #[test]
    fn exactly_one_form_of_the_key_must_be_given() {
        let rest = "--vault-address=https://v --approle-role-id=r --approle-secret-id-path=/s";
        for (key, good) in [
            ("--vault-key-path=transit/keys/k", true),
            ("--transit-key=k", true),
            ("--transit-key=k --transit-mount=team/transit", true),
            ("--transit-mount=transit", false),
            ("--transit-key=k --vault-key-path=transit/keys/k", false),
            ("", false),
        ] {
            assert_eq!(read(&format!("{rest} {key}")).is_ok(), good, "{key}");
        }
    }

    #[test]
    fn a_stronger_origin_replaces_the_other_spelling() {
        let variables = [
            ("VAULT_KUBE_KMS_VAULT_KEY_PATH", "transit/keys/from-variable"),
            ("VAULT_KUBE_KMS_ZAP_LOG_LEVEL", "error"),
            ("VAULT_KUBE_KMS_VAULT_AUTH_NAMESPACE", ""),
        ];
        let variables = variables.map(|(n, v)| (n.to_owned(), v.to_owned()));
        let line = "--vault-address=https://v --approle-role-id=r --approle-secret-id-path=/s \
                    --vault-namespace=admin --transit-key=from-flag --log-level=debug";
        let args: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let settings = Settings::read(&Sources::collect(&args, variables)).unwrap();
        let KeeperSettings::Vault(vault) = settings.keeper else { panic!("not Vault") };
        assert_eq!(vault.transit.key.key, "from-flag");
        assert_eq!(vault.approle.namespace.as_str(), "admin");
        assert_eq!(settings.log_level, Level::Debug);
    }

    #[test]
    fn a_role_id_is_judged_wherever_it_is_given() {
        let path = ("VAULT_KUBE_KMS_APPROLE_ROLE_ID_PATH", "/from-variable");
        let rest = ["--vault-address=https://v", "--transit-key=k", "--approle-secret-id-path=/s"];
        for variables in [vec![], vec![(path.0.to_owned(), path.1.to_owned())]] {
            for (given, form) in [("a b", "blanks"), ("\"r\"", "quotes"), ("{\"a\":1}", "JSON")] {
                let role = format!("--approle-role-id={given}");
                let args: Vec<_> =
                    rest.into_iter().chain([role.as_str()]).map(str::to_owned).collect();
                let sources = Sources::collect(&args, variables.clone());
                let errors = Settings::read(&sources).unwrap_err();
                let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
                assert_eq!(texts.len(), 1, "{texts:?}");
                assert!(texts[0].contains("--approle-role-id (") && texts[0].contains(form));
            }
        }
    }

    #[test]
    fn the_embedded_keeper_asks_for_nothing_of_vault() {
        let settings =
            read("--keeper=local --local-key-file=/k --listen-address=unix:///@kms").unwrap();
        assert!(matches!(settings.keeper, KeeperSettings::Local(_)));
        assert_eq!(settings.peers, PeerPolicy::Uids(BTreeSet::new()));
    }
}
