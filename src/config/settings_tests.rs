use super::*;
use crate::adapters::vault::{
    login::{LoginSettings, credential_file::CredentialPath},
    settings::VaultSettings,
    tls::Trust,
};

#[test]
fn accepts_only_a_plain_address_of_a_collector() {
    assert_eq!(collector(""), Ok(None));
    assert_eq!(collector("http://[::1]:4317"), Ok(Some("http://[::1]:4317".to_owned())));
    for text in ["https://c:4317", "c:4317", "http://c", "http://c:4317/v1", "http://a@c:4317"] {
        assert!(collector(text).is_err(), "{text}");
    }
}

/// Returns the settings of the default keeper.
fn vault(sources: &Sources) -> VaultSettings {
    keepers::vault::read(&mut Reading::new(sources)).unwrap()
}

fn sources(line: &str) -> Sources {
    let args: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
    Sources::collect(&args, [])
}

fn read(line: &str) -> Result<Settings, Vec<ConfigError>> {
    Settings::read(&sources(line))
}

/// The flags that OpenShift's operator writes.
const OPENSHIFT: &str = "-listen-address=unix:///var/run/kmsplugin/kms-1.sock \
    -vault-address=https://vault:8200 -transit-mount=transit -transit-key=my-key \
    -approle-role-id=r -approle-secret-id-path=/var/run/secrets/s -vault-namespace=admin \
    -tls-skip-verify --log-level=debug-extended";

#[test]
fn reads_an_existing_manifest_unchanged() {
    let settings = read(OPENSHIFT).unwrap();
    let vault = vault(&sources(OPENSHIFT));
    assert_eq!(vault.servers.tls.trust, Trust::InsecureSkipVerify);
    assert_eq!(vault.transit.key.to_string(), "transit/keys/my-key");
    assert_eq!(vault.login.namespace.as_str(), "admin");
    assert_eq!(settings.log_level, Level::Trace);
    assert_eq!(settings.peers, PeerPolicy::FileMode);
}

#[test]
fn reports_all_errors_at_once_with_flag_and_origin() {
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
        assert!(texts.iter().any(|t| t.starts_with(&format!("--{flag} ("))), "{flag}: {texts:#?}");
    }
    assert_eq!(texts.len(), 9, "{texts:#?}");
    assert!(texts.iter().any(|t| t.contains("--approle-role-id (not given)")));
}

const KEY: &str = "--vault-address=https://v --vault-key-path=transit/keys/k";

fn login(line: &str) -> Result<LoginSettings, String> {
    let line = format!("{KEY} {line}");
    match read(&line) {
        Ok(_) => Ok(vault(&sources(&line)).login),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn rejects_secret_id_flags_without_a_secret_id_file() {
    let alone = login("--approle-role-id=r").unwrap();
    assert_eq!(alone.timeout.as_secs(), 30);
    assert!(alone.method.files().is_empty() && alone.mount.to_string() == "approle");
    let wrapped = login("--approle-role-id=r --approle-secret-id-wrapped").unwrap_err();
    assert!(wrapped.contains("give --approle-secret-id-path"), "{wrapped}");
}

#[test]
fn reads_each_auth_method_with_its_own_flags_and_default_mount() {
    for (line, mount, files) in [
        ("--auth-method=jwt --jwt-path=/j", "jwt", "jwt-path /j"),
        ("--auth-method=jwt --jwt-path=/j --auth-mount=nodes", "nodes", "jwt-path /j"),
        (
            "--auth-method=kubernetes --kubernetes-role=r",
            "kubernetes",
            "kubernetes-jwt-path /var/run/secrets/kubernetes.io/serviceaccount/token",
        ),
        ("--auth-method=cert --tls-client-cert-file=/no-such/pair.pem", "cert", ""),
        ("--auth-method=spiffe --spiffe-socket=unix:///a --spiffe-audience=v", "jwt", ""),
        (
            "--auth-method=spiffe --spiffe-svid=x509 --spiffe-socket=unix:///a --tls-skip-verify",
            "cert",
            "",
        ),
        ("--auth-method=token-file --token-file=/t", "token-file", "token-file /t"),
    ] {
        let settings = login(line).unwrap();
        let of = |file: &CredentialPath| format!("{} {}", file.flag, file.path.display());
        let read: Vec<_> = settings.method.files().iter().map(of).collect();
        assert_eq!((settings.mount.to_string().as_str(), read.concat().as_str()), (mount, files));
        assert!(settings.ignored.is_empty(), "{line}: {:?}", settings.ignored);
    }
    for (line, flags) in [
        ("--auth-method=jwt", vec!["jwt-path"]),
        (
            "--auth-method=kubernetes --kubernetes-jwt-path=",
            vec!["kubernetes-jwt-path", "kubernetes-role"],
        ),
        ("--auth-method=token-file --token-file-renew=no", vec!["token-file", "token-file-renew"]),
        ("--auth-method=cert", vec!["tls-client-cert-file"]),
        (
            "--auth-method=spiffe --spiffe-id=x",
            vec!["spiffe-socket", "spiffe-id", "spiffe-audience"],
        ),
        ("--auth-method=ldap --approle-secret-id-wrapped=x", vec!["auth-method"]),
    ] {
        let text = login(line).unwrap_err();
        for flag in flags {
            assert!(text.contains(&format!("--{flag} (")), "{line}: {text}");
        }
    }
    let settings = login("--auth-method=token-file --token-file=/t --jwt-path=/j --cert-role=r");
    assert_eq!(settings.unwrap().ignored, ["jwt-path", "cert-role"]);
}

#[test]
fn validates_a_role_id_from_a_flag_next_to_a_path_from_a_variable() {
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
fn a_stronger_source_replaces_the_other_form_of_a_setting() {
    let variables = [
        ("VAULT_KUBE_KMS_VAULT_KEY_PATH", "transit/keys/from-variable"),
        ("VAULT_KUBE_KMS_ZAP_LOG_LEVEL", "error"),
        ("VAULT_KUBE_KMS_VAULT_AUTH_NAMESPACE", ""),
    ];
    let variables = variables.map(|(n, v)| (n.to_owned(), v.to_owned()));
    let line = "--vault-address=https://v --approle-role-id=r --approle-secret-id-path=/s \
                --vault-namespace=admin --transit-key=from-flag --log-level=debug";
    let args: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
    let sources = Sources::collect(&args, variables);
    let (settings, vault) = (Settings::read(&sources).unwrap(), vault(&sources));
    assert_eq!(vault.transit.key.key, "from-flag");
    assert_eq!(vault.login.namespace.as_str(), "admin");
    assert_eq!(settings.log_level, Level::Debug);
}

#[test]
fn rejects_a_role_id_with_blanks_quotes_or_json() {
    let path = ("VAULT_KUBE_KMS_APPROLE_ROLE_ID_PATH", "/from-variable");
    let rest = ["--vault-address=https://v", "--transit-key=k", "--approle-secret-id-path=/s"];
    for variables in [vec![], vec![(path.0.to_owned(), path.1.to_owned())]] {
        for (given, form) in [("a b", "blanks"), ("\"r\"", "quotes"), ("{\"a\":1}", "JSON")] {
            let role = format!("--approle-role-id={given}");
            let args: Vec<_> = rest.into_iter().chain([role.as_str()]).map(str::to_owned).collect();
            let sources = Sources::collect(&args, variables.clone());
            let errors = Settings::read(&sources).unwrap_err();
            let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(texts.len(), 1, "{texts:?}");
            assert!(texts[0].contains("--approle-role-id (") && texts[0].contains(form));
        }
    }
}

#[test]
fn the_embedded_keeper_needs_no_flag_of_vault() {
    let settings =
        read("--keeper=local --local-key-file=/k --listen-address=unix:///@kms").unwrap();
    assert_eq!(settings.keeper.connection(), "local");
    assert_eq!(settings.peers, PeerPolicy::Uids(BTreeSet::new()));
}
