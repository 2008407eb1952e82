//! Reads the settings of Vault: address, key, TLS and login.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rustls_pki_types::ServerName;

use super::login;
use crate::adapters::{
    system::bounded_file::{self, Kinds, READ_TIMEOUT},
    vault::{
        address::VaultAddress,
        bundle::{self, BUNDLE_MAX},
        client_pair::{PAIR_MAX, PairFailure, PairPaths, Problem},
        key_path::{KeyPath, Namespace},
        policy::{self, Installation},
        servers::ServerSettings,
        settings::VaultSettings,
        tls::{Identity, TlsSettings, Trust},
        transit::TransitSettings,
    },
};
use crate::config::reading::Reading;

/// The most endpoints of one cluster. Each endpoint has a breaker and a metric label of its own.
const ENDPOINTS_MAX: usize = 16;

/// Returns the settings, or `None` after an error. All errors are added to `reading`.
pub(in crate::config) fn read(reading: &mut Reading<'_>) -> Option<VaultSettings> {
    // Reads every part before the first `?`, so that all errors are reported at once.
    let servers = servers(reading);
    let login = login::read(reading);
    let key = key(reading);
    let namespace = reading.parsed("vault-namespace", Namespace::parse);
    let require_enterprise = reading.boolean("require-enterprise");
    let login = login?;
    let mut servers = servers?;
    if login.method.presents_a_certificate() {
        servers.tls.identity = agents_certificate(reading, &servers)?;
    }
    let ca_file = matches!(servers.tls.trust, Trust::Bundle(_) | Trust::BundleUnavailable(_))
        .then(|| PathBuf::from(reading.text("tls-ca-file")));
    let client_pair = client_pair_paths(reading);
    Some(VaultSettings {
        servers,
        ca_file,
        client_pair,
        transit: TransitSettings {
            key: key?,
            namespace: namespace?,
            auth_namespace: login.namespace.clone(),
            require_enterprise: require_enterprise?,
        },
        login,
    })
}

/// Returns the policy that the role needs for the configured key, or `None` after an error.
pub(super) fn policy(reading: &mut Reading<'_>) -> Option<String> {
    let key = key(reading);
    let namespace = reading.parsed("vault-namespace", Namespace::parse);
    let auth_namespace = login::namespace(reading);
    let require_enterprise = reading.boolean("require-enterprise");
    let wrapped_at = login::wrapped_at(reading);
    let policy = policy::policy(&Installation {
        key: key?,
        namespace: namespace?,
        auth_namespace: auth_namespace?,
        require_enterprise: require_enterprise?,
        wrapped_at,
    });
    policy.map_err(|problem| reading.wrong("vault-auth-namespace", problem)).ok()
}

fn servers(reading: &mut Reading<'_>) -> Option<ServerSettings> {
    let addresses = addresses(reading);
    let tls = tls(reading);
    let tls = match (tls, &addresses) {
        (Some(tls), Some(addresses)) if addresses.iter().any(VaultAddress::is_tls) => {
            match usable(&tls) {
                Ok(()) => Some(tls),
                Err(problem) => {
                    reading.wrong("tls-ca-file", problem);
                    None
                }
            }
        }
        (Some(tls), Some(_)) if tls.require_pq => {
            reading
                .wrong("tls-require-pq", "http:// has no TLS; write https:// in --vault-address");
            None
        }
        (Some(tls), Some(_)) if tls.identity != Identity::None => {
            reading.wrong(
                "tls-client-cert-file",
                "http:// has no TLS; write https:// in --vault-address",
            );
            None
        }
        (tls, _) => tls,
    };
    let (least, most) = (Duration::from_millis(100), Duration::from_mins(5));
    let connect_timeout = reading.duration("vault-connection-timeout", least, most);
    let request_timeout = reading.duration("vault-request-timeout", least, Duration::from_secs(30));
    Some(ServerSettings {
        addresses: addresses?,
        tls: tls?,
        connect_timeout: connect_timeout?,
        request_timeout: request_timeout?,
    })
}

/// Reads the endpoints of one cluster. The flag may be given several times, or with commas between
/// values.
fn addresses(reading: &mut Reading<'_>) -> Option<Vec<VaultAddress>> {
    let texts = reading.texts("vault-address").iter().flat_map(|text| text.split(','));
    let texts: Vec<_> = texts.map(str::trim).filter(|text| !text.is_empty()).collect();
    if texts.is_empty() {
        return reading.required("vault-address", VaultAddress::parse).map(|one| vec![one]);
    }
    let mut addresses: Vec<VaultAddress> = Vec::new();
    for text in texts {
        let problem = match VaultAddress::parse(text) {
            Ok(address) if addresses.first().is_some_and(|a| a.is_tls() != address.is_tls()) => {
                "the addresses mix https:// and http://; write https:// in all of them".to_owned()
            }
            Ok(address) if addresses.contains(&address) => {
                "the same address is given twice; leave one out".to_owned()
            }
            Ok(_) if addresses.len() == ENDPOINTS_MAX => {
                format!("more than {ENDPOINTS_MAX} addresses; write at most {ENDPOINTS_MAX}")
            }
            Ok(address) => {
                addresses.push(address);
                continue;
            }
            Err(problem) => problem,
        };
        reading.wrong("vault-address", problem);
        return None;
    }
    Some(addresses)
}

fn tls(reading: &mut Reading<'_>) -> Option<TlsSettings> {
    let skip = reading.boolean("tls-skip-verify");
    let require_pq = reading.boolean("tls-require-pq");
    let trust = match (skip, reading.text("tls-ca-file")) {
        // The file is not read. A warning says so.
        (Some(true), _) => Some(Trust::InsecureSkipVerify),
        (_, "") => Some(Trust::System),
        _ => reading.parsed("tls-ca-file", authorities),
    };
    let server_name = match reading.text("tls-sni") {
        "" => Some(None),
        _ => reading
            .parsed("tls-sni", |text| {
                ServerName::try_from(text.to_owned()).map_err(|_invalid| {
                    format!("{text:?} is not a valid host name; write for example vault.example")
                })
            })
            .map(Some),
    };
    let identity = identity(reading);
    skip?;
    Some(TlsSettings {
        trust: trust?,
        identity: identity?,
        server_name: server_name?,
        require_pq: require_pq?,
    })
}

/// Checks that connections can be made with `tls`. Reads the authorities of the system if they are
/// used, from places that nobody checked.
fn usable(tls: &TlsSettings) -> Result<(), String> {
    let tls = tls.clone();
    bounded_file::in_time(READ_TIMEOUT, move |_until| tls.client_config().map(drop))
        .map_err(|problem| format!("the system's certificate authorities {problem}"))?
}

/// Reads the authorities in the file at `path`. A file that cannot be read may be mounted later, so
/// the keeper waits for it. A file with unusable content is an error.
fn authorities(path: &str) -> Result<Trust, String> {
    match bounded_file::read_in_time(Path::new(path), BUNDLE_MAX, Kinds::Plain) {
        Ok(pem) => {
            bundle::read(pem.expose()).map_err(|problem| format!("{path} {problem}"))?;
            Ok(Trust::Bundle(pem.expose().to_vec()))
        }
        Err(problem) => Ok(Trust::BundleUnavailable(format!("--tls-ca-file: {path} {problem}"))),
    }
}

/// Reads the client certificate. Files that cannot be read may be mounted later, so the keeper waits
/// for them. Files with unusable content are an error.
fn identity(reading: &mut Reading<'_>) -> Option<Identity> {
    let Some(paths) = client_pair_paths(reading) else {
        let mut is_wrong = false;
        for flag in ["tls-client-key-file", "tls-client-key-password-file"] {
            if !reading.text(flag).is_empty() {
                reading.wrong(flag, "there is no certificate; give --tls-client-cert-file too");
                is_wrong = true;
            }
        }
        return (!is_wrong).then_some(Identity::None);
    };
    let named = |(file, text): &Problem| {
        let (flag, path) = paths.named(*file);
        (flag, format!("{} {text}", path.display()))
    };
    match paths.load(|path| bounded_file::read_in_time(path, PAIR_MAX, Kinds::Plain)) {
        Ok(pair) => Some(Identity::Pair(pair)),
        Err(PairFailure::Unreadable(problem)) => {
            let (flag, text) = named(&problem);
            let why = format!("--{flag}: {text}");
            Some(Identity::Unavailable { why, remedy: Identity::WRITE_THE_FILES })
        }
        Err(PairFailure::Unusable(problems)) => {
            for (flag, text) in problems.iter().map(named) {
                reading.wrong(flag, text);
            }
            None
        }
    }
}

/// Returns the client certificate of a login that presents the certificate of an agent: none yet.
fn agents_certificate(reading: &mut Reading<'_>, servers: &ServerSettings) -> Option<Identity> {
    if servers.tls.identity != Identity::None {
        let problem = "the X.509-SVID is the client certificate; leave this flag out, or write --spiffe-svid=jwt";
        reading.wrong("tls-client-cert-file", problem);
        return None;
    }
    if !servers.is_tls() {
        reading
            .wrong("spiffe-svid", "http:// has no TLS; write https:// in --vault-address, or jwt");
        return None;
    }
    Some(Identity::Unavailable {
        why: "no X.509-SVID has arrived from the SPIFFE agent yet".to_owned(),
        remedy: "see the agent's log; check --spiffe-socket and the registration entry",
    })
}

/// Returns the paths of the client certificate, or `None` without one.
fn client_pair_paths(reading: &Reading<'_>) -> Option<PairPaths> {
    let path = |flag| Some(reading.text(flag)).filter(|text| !text.is_empty()).map(PathBuf::from);
    Some(PairPaths {
        certificate: path("tls-client-cert-file")?,
        key: path("tls-client-key-file"),
        password: path("tls-client-key-password-file"),
    })
}

/// Reads the path of the key. Both forms from the same source are an error. Of two sources the
/// higher one wins: a flag of one form replaces a variable or a file key of the other form.
fn key(reading: &mut Reading<'_>) -> Option<KeyPath> {
    let newer = reading.given("vault-key-path");
    let halves = ["transit-key", "transit-mount"];
    let older = halves.into_iter().filter_map(|name| reading.given(name)).max();
    if newer.is_some() && newer == older {
        let problem = "--transit-key or --transit-mount is given too; give one form of the key";
        reading.wrong("vault-key-path", problem);
        return None;
    }
    if older > newer {
        let mount = reading.text("transit-mount");
        return reading.required("transit-key", |key| KeyPath::of_parts(mount, key));
    }
    reading.required("vault-key-path", KeyPath::parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{error::ConfigError, sources::Sources};

    fn read(line: &str) -> Result<VaultSettings, Vec<ConfigError>> {
        let args: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let sources = Sources::collect(&args, []);
        let mut reading = Reading::new(&sources);
        super::read(&mut reading).filter(|_| reading.errors.is_empty()).ok_or(reading.errors)
    }

    #[test]
    fn rejects_a_required_hybrid_key_exchange_without_tls() {
        let of = |address: &str| {
            read(&format!(
                "--vault-address={address} --vault-key-path=transit/keys/k --approle-role-id=r \
                 --tls-skip-verify --tls-require-pq"
            ))
        };
        assert!(of("https://v").unwrap().servers.tls.require_pq);
        let errors = of("http://v").unwrap_err();
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert!(texts.concat().contains("--tls-require-pq") && texts.len() == 1, "{texts:#?}");
    }

    /// Returns the texts of the errors with these flags of a client certificate.
    fn errors_of_pair(flags: &str) -> Vec<String> {
        let needed = "--vault-key-path=transit/keys/k --approle-role-id=r --tls-skip-verify";
        let errors = read(&format!("{needed} {flags}")).err().unwrap_or_default();
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rejects_a_client_certificate_that_cannot_be_used() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(at("empty"), "").unwrap();
        let empty = at("empty");
        for (flags, expected) in [
            (
                "--vault-address=https://v --tls-client-key-file=/k".to_owned(),
                &["tls-client-key-file"][..],
            ),
            (
                "--vault-address=https://v --tls-client-key-password-file=/p".to_owned(),
                &["tls-client-key-password-file"],
            ),
            (
                format!("--vault-address=http://v --tls-client-cert-file={}", at("missing")),
                &["http:// has no TLS"],
            ),
            (
                format!(
                    "--vault-address=https://v --tls-client-cert-file={empty} \
                     --tls-client-key-file={empty}"
                ),
                &["holds no certificate", "holds no private key"],
            ),
        ] {
            let errors = errors_of_pair(&flags);
            assert_eq!(errors.len(), expected.len(), "{errors:#?}");
            for (error, expected) in errors.iter().zip(expected) {
                assert!(error.contains(expected), "{errors:#?}");
            }
        }
    }

    #[test]
    fn waits_for_a_client_certificate_that_is_missing() {
        let settings = read(
            "--vault-address=https://v --vault-key-path=transit/keys/k --approle-role-id=r \
             --tls-client-cert-file=/none/c --tls-client-key-file=/none/k \
             --tls-client-key-password-file=/none/p",
        )
        .unwrap();
        let Identity::Unavailable { why, .. } = settings.servers.tls.identity else { panic!() };
        assert!(why.starts_with("--tls-client-cert-file: /none/c cannot be read"), "{why}");
        let paths: Vec<_> = settings.client_pair.iter().flat_map(PairPaths::iter).collect();
        assert_eq!(paths, [Path::new("/none/c"), Path::new("/none/k"), Path::new("/none/p")]);
    }
}
