//! Whom the Vault adapter believes that it is Vault.

use std::time::Duration;

use rustls_pki_types::ServerName;
use vault_kube_kms::{
    adapters::vault::tls::Trust,
    domain::error::{Code, KmsError},
    testkit::Subject,
};

use crate::support::{
    admin::Admin,
    stand_in::StandIn,
    transit::{TransitSubject, Wiring},
};

/// What describing the key gives with `change`d settings, at a server whose certificate is for
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
async fn the_servers_own_authority_and_name_are_believed() {
    assert_eq!(described(|_| ()).await, Ok(()));
    assert_eq!(described(|wiring| wiring.client.tls.server_name = name("localhost")).await, Ok(()));
}

#[tokio::test]
async fn another_name_or_authority_is_not() {
    let other_name = described(|w| w.client.tls.server_name = name("vault.example")).await;
    let other = StandIn::start().await.ca.clone();
    let other_authority = described(|w| w.client.tls.trust = Trust::Bundle(other)).await;
    let system = described(|wiring| wiring.client.tls.trust = Trust::System).await;
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
async fn anybody_is_believed_when_told_to() {
    let result = described(|wiring| {
        wiring.client.tls.trust = Trust::InsecureSkipVerify;
        wiring.client.tls.server_name = name("vault.example");
    });
    assert_eq!(result.await, Ok(()));
}

#[tokio::test]
async fn a_server_without_a_hybrid_key_exchange_is_refused_where_one_is_required() {
    let required = |wiring: &mut Wiring| wiring.client.tls.require_pq = true;
    assert_eq!(described(required).await, Ok(()));
    assert_eq!(described_by(StandIn::classical().await, |_| ()).await, Ok(()));
    let error = described_by(StandIn::classical().await, required).await.unwrap_err();
    assert_eq!(error.code(), Code::KeeperUnreachable);
    assert!(error.cause().contains("--tls-require-pq"), "{error}");
    assert!(error.remedy().contains("X25519MLKEM768"), "{error}");
}

#[tokio::test]
async fn tls_that_is_asked_for_in_plain_http_is_named() {
    let stand_in = StandIn::start().await;
    let plain = stand_in.address.replace("https://", "http://");
    let admin = Admin::new(&plain, "unused", None);
    let subject = TransitSubject::new(admin, stand_in.provisioned.clone());
    let until = subject.clock().now().after(Duration::from_secs(5));
    let error = subject.kek.describe(until).await.unwrap_err();
    assert_eq!(error.code(), Code::KeeperUnreachable, "{error}");
}
