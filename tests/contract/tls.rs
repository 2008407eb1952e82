//! Tests which servers the Vault adapter trusts, and which client certificate it presents.

use std::{sync::Mutex, time::Duration};

use http::Method;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::time::{interval, timeout};
use vault_kube_kms::{
    adapters::vault::{
        address::VaultAddress,
        client_pair::{ClientPair, PairParts},
        key_path::MountPath,
        login::{cert::CertSettings, method::MethodSettings},
        tls::{Identity, Trust},
    },
    domain::error::{Code, KmsError},
    testkit::Subject,
};

use crate::support::{
    admin::Admin,
    openbao::{OpenBao, free_port},
    stand_in::StandIn,
    transit::{TransitSubject, Wiring},
};

/// Describes the key with settings that `change` has changed, at a server with a certificate for
/// 127.0.0.1 and localhost.
async fn described(change: impl FnOnce(&mut Wiring)) -> Result<(), KmsError> {
    described_by(StandIn::start().await, change).await
}

/// The same at `stand_in`.
async fn described_by(stand_in: StandIn, change: impl FnOnce(&mut Wiring)) -> Result<(), KmsError> {
    let admin = Admin::new(&stand_in.address, "unused", Some(stand_in.ca.clone()));
    let subject = TransitSubject::with(admin, stand_in.provisioned.clone(), change);
    let until = subject.clock().now().after(Duration::from_secs(5));
    subject.kek.describe(until).await.map(drop)
}

fn name(name: &str) -> Option<ServerName<'static>> {
    Some(ServerName::try_from(name.to_owned()).unwrap())
}

#[tokio::test]
async fn accepts_a_server_with_the_right_authority_and_name() {
    assert_eq!(described(|_| ()).await, Ok(()));
    assert_eq!(
        described(|wiring| wiring.servers.tls.server_name = name("localhost")).await,
        Ok(())
    );
}

#[tokio::test]
async fn rejects_a_server_with_another_name_or_authority() {
    let other_name = described(|w| w.servers.tls.server_name = name("vault.example")).await;
    let other = StandIn::start().await.ca.clone();
    let other_authority = described(|w| w.servers.tls.trust = Trust::Bundle(other)).await;
    let system = described(|wiring| wiring.servers.tls.trust = Trust::System).await;
    for (result, flag) in
        [(other_name, "--tls-sni"), (other_authority, "--tls-ca-file"), (system, "--tls-ca-file")]
    {
        let error = result.unwrap_err();
        assert_eq!(error.code(), Code::KeeperUnreachable);
        assert!(error.cause().contains("certificate"), "{error}");
        assert!(error.remedy().contains(flag), "{error}");
    }
}

#[tokio::test]
async fn accepts_any_server_without_verification() {
    let result = described(|wiring| {
        wiring.servers.tls.trust = Trust::InsecureSkipVerify;
        wiring.servers.tls.server_name = name("vault.example");
    });
    assert_eq!(result.await, Ok(()));
}

#[tokio::test]
async fn rejects_a_server_without_the_required_hybrid_key_exchange() {
    let required = |wiring: &mut Wiring| wiring.servers.tls.require_pq = true;
    assert_eq!(described(required).await, Ok(()));
    assert_eq!(described_by(StandIn::classical().await, |_| ()).await, Ok(()));
    let error = described_by(StandIn::classical().await, required).await.unwrap_err();
    assert_eq!(error.code(), Code::KeeperUnreachable);
    assert!(error.cause().contains("--tls-require-pq"), "{error}");
    assert!(error.remedy().contains("X25519MLKEM768"), "{error}");
}

#[tokio::test]
async fn names_plain_http_on_a_tls_port() {
    let stand_in = StandIn::start().await;
    let plain = stand_in.address.replace("https://", "http://");
    let admin = Admin::new(&plain, "unused", None);
    let subject = TransitSubject::new(admin, stand_in.provisioned.clone());
    let until = subject.clock().now().after(Duration::from_secs(5));
    let error = subject.kek.describe(until).await.unwrap_err();
    assert_eq!(error.code(), Code::KeeperUnreachable, "{error}");
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A client certificate of `by`, with some fields changed.
fn client_of(by: &Authority, change: impl FnOnce(&mut CertificateParams)) -> ClientPair {
    let mut params = CertificateParams::new(vec!["a client".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, by).unwrap().pem();
    let both = certificate + &key.serialize_pem();
    let parts = PairParts { certificate: both.as_bytes(), key: None, password: None };
    ClientPair::read(&parts).unwrap()
}

/// A real server whose further listeners want a client certificate of `by`: one with TLS 1.3, one
/// with TLS 1.2. Returns the addresses of these.
async fn wanting_clients_of(by: &Authority) -> Option<(OpenBao, [String; 2])> {
    let ports = Mutex::new([0; 2]);
    let server = OpenBao::start_with(|directory| {
        let ca = directory.join("clients.pem");
        std::fs::write(&ca, by.pem()).unwrap();
        *ports.lock().unwrap() = [free_port(), free_port()];
        let ports = ports.lock().unwrap();
        let versions = ports.iter().zip(["tls13", "tls12"]);
        let listeners = versions.map(|(port, version)| {
            format!(
                "listener \"tcp\" {{\n address = \"127.0.0.1:{port}\"\n \
                 tls_cert_file = \"{folder}/vault-cert.pem\"\n \
                 tls_key_file = \"{folder}/vault-key.pem\"\n \
                 tls_max_version = \"{version}\"\n \
                 tls_require_and_verify_client_cert = true\n \
                 tls_client_ca_file = \"{ca}\"\n}}\n",
                folder = directory.display(),
                ca = ca.display(),
            )
        });
        listeners.collect()
    });
    let server = server.await?;
    let addresses = ports.into_inner().unwrap().map(|port| format!("https://127.0.0.1:{port}"));
    Some((server, addresses))
}

#[tokio::test]
async fn a_client_certificate_is_presented_replaced_and_named_when_the_server_refuses_it() {
    let (known, unknown) = (authority(), authority());
    let Some((server, addresses)) = wanting_clients_of(&known).await else { return };
    server.admin.mount().await;
    let provisioned = server.admin.provision("clients").await;
    for address in &addresses {
        let subject = |identity: Identity| {
            TransitSubject::with(server.admin.clone(), provisioned.clone(), |wiring| {
                wiring.servers.addresses = vec![VaultAddress::parse(address).unwrap()];
                wiring.servers.tls.identity = identity;
            })
        };
        let describe = async |subject: &TransitSubject| {
            let until = subject.clock().now().after(Duration::from_secs(5));
            subject.kek.describe(until).await.map(drop)
        };

        let none = describe(&subject(Identity::None)).await.unwrap_err();
        assert_eq!(none.code(), Code::KeeperUnreachable);
        assert!(none.remedy().contains("--tls-client-cert-file"), "{none}");

        for (pair, cause, remedy) in [
            (client_of(&unknown, |_| ()), "does not know the authority", "tls_client_ca_file"),
            (
                client_of(&known, |params| params.not_after = date_time_ymd(2020, 1, 1)),
                "valid until 2020-01-01T00:00:00Z, has expired",
                "write a new certificate",
            ),
            (
                client_of(&known, |params| {
                    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                }),
                "does not accept the client certificate in --tls-client-cert-file",
                "clientAuth",
            ),
        ] {
            let subject = subject(Identity::Pair(pair));
            let refused = describe(&subject).await.unwrap_err();
            assert_eq!(refused.code(), Code::KeeperUnreachable);
            assert!(refused.cause().contains(cause), "{address}: {refused}");
            assert!(refused.remedy().contains(remedy), "{address}: {refused}");
        }

        let subject = subject(Identity::Pair(client_of(&known, |_| ())));
        assert_eq!(describe(&subject).await, Ok(()), "{address}");
        // The next request uses a new connection, so the server sees the other certificate.
        assert_eq!(subject.client.servers().present(client_of(&unknown, |_| ())), Ok(true));
        assert!(describe(&subject).await.is_err(), "{address}");
        assert_eq!(subject.client.servers().present(client_of(&known, |_| ())), Ok(true));
        // The breaker of the endpoint stays open for at most two seconds.
        let mut look = interval(Duration::from_millis(50));
        let heals = async {
            while describe(&subject).await.is_err() {
                look.tick().await;
            }
        };
        assert!(timeout(Duration::from_secs(20), heals).await.is_ok(), "{address}");
    }
}

#[tokio::test]
async fn a_client_certificate_logs_in_and_its_renewed_one_keeps_the_session() {
    let known = authority();
    let Some((server, [address, _])) = wanting_clients_of(&known).await else { return };
    server.admin.mount().await;
    let provisioned = server.admin.provision("certified").await;
    server.admin.must(Method::POST, "sys/auth/cert", json!({"type": "cert"})).await;
    let role = json!({
        "certificate": known.pem(),
        "token_policies": "certified",
        "token_ttl": "3s",
    });
    server.admin.must(Method::POST, "auth/cert/certs/certified", role).await;
    let (first, second) = (client_of(&known, |_| ()), client_of(&known, |_| ()));
    let subject = TransitSubject::with(server.admin.clone(), provisioned, |wiring| {
        wiring.servers.addresses = vec![VaultAddress::parse(&address).unwrap()];
        wiring.servers.tls.identity = Identity::Pair(first);
        wiring.login.mount = MountPath::parse("cert").unwrap();
        let role = "certified".to_owned();
        wiring.login.method = MethodSettings::Cert(CertSettings { role });
    });
    let clock = subject.clock();
    let describe = async || {
        let until = clock.now().after(Duration::from_secs(10));
        subject.kek.describe(until).await.map(drop)
    };
    assert_eq!(describe().await, Ok(()));
    assert_eq!(subject.client.servers().present(second), Ok(true));
    // The token of the first certificate ends meanwhile.
    let end = clock.now().after(Duration::from_secs(6));
    let mut look = interval(Duration::from_millis(50));
    while clock.now() < end {
        assert_eq!(describe().await, Ok(()));
        look.tick().await;
    }
}
