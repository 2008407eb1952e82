//! Reads the settings of Vault: address, key, TLS and login.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rustls_pki_types::ServerName;

use super::login;
use crate::adapters::{
    system::bounded_file::{self, Kinds},
    vault::{
        address::VaultAddress,
        bundle::{self, BUNDLE_MAX},
        client::ClientSettings,
        key_path::{KeyPath, Namespace},
        policy::{self, Installation},
        settings::VaultSettings,
        tls::{TlsSettings, Trust},
        transit::TransitSettings,
    },
};
use crate::config::reading::Reading;

/// The most endpoints of one cluster. Each endpoint has a breaker and a metric label of its own.
const ENDPOINTS_MAX: usize = 16;

/// Returns the settings, or `None` after an error. All errors are added to `reading`.
pub(in crate::config) fn read(reading: &mut Reading<'_>) -> Option<VaultSettings> {
    // Reads every part before the first `?`, so that all errors are reported at once.
    let client = client(reading);
    let login = login::read(reading);
    let key = key(reading);
    let namespace = reading.parsed("vault-namespace", Namespace::parse);
    let require_enterprise = reading.boolean("require-enterprise");
    let login = login?;
    let client = client?;
    let ca_file = matches!(client.tls.trust, Trust::Bundle(_) | Trust::BundleUnavailable(_))
        .then(|| PathBuf::from(reading.text("tls-ca-file")));
    Some(VaultSettings {
        client,
        ca_file,
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

fn client(reading: &mut Reading<'_>) -> Option<ClientSettings> {
    let addresses = addresses(reading);
    let tls = tls(reading);
    let tls = match (tls, &addresses) {
        (Some(tls), Some(addresses)) if addresses.iter().any(VaultAddress::is_tls) => {
            match tls.client_config() {
                Ok(_) => Some(tls),
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
        (tls, _) => tls,
    };
    let (least, most) = (Duration::from_millis(100), Duration::from_mins(5));
    let connect_timeout = reading.duration("vault-connection-timeout", least, most);
    let request_timeout = reading.duration("vault-request-timeout", least, Duration::from_secs(30));
    Some(ClientSettings {
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
    skip?;
    Some(TlsSettings { trust: trust?, server_name: server_name?, require_pq: require_pq? })
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
        assert!(of("https://v").unwrap().client.tls.require_pq);
        let errors = of("http://v").unwrap_err();
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert!(texts.concat().contains("--tls-require-pq") && texts.len() == 1, "{texts:#?}");
    }
}
