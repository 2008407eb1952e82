//! The key in one namespace, the login in another, on a real server.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use vault_kube_kms::{
    adapters::vault::key_path::Namespace,
    domain::{
        envelope::{Annotations, AssociatedData},
        error::Code,
        key::KekVersion,
        secret::Plaintext,
    },
    ports::kek::Unwrap,
    testkit::Subject,
};

use crate::support::{
    admin::{Admin, Provisioned},
    openbao::OpenBao,
    transit::TransitSubject,
};

/// A role in `team` that may use a key in `team/app`.
async fn provision(admin: &Admin) -> Provisioned {
    let post = |path: &'static str, body: Value| admin.must(Method::POST, path, body);
    post("sys/namespaces/team", json!({})).await;
    post("team/sys/namespaces/app", json!({})).await;
    post("team/app/sys/mounts/transit", json!({"type": "transit"})).await;
    post("team/app/transit/keys/k", json!({"type": "aes256-gcm96"})).await;
    post("team/sys/auth/approle", json!({"type": "approle"})).await;
    let policy = "path \"app/transit/encrypt/k\" { capabilities = [\"update\"] }
                  path \"app/transit/decrypt/k\" { capabilities = [\"update\"] }
                  path \"app/transit/keys/k\" { capabilities = [\"read\"] }";
    post("team/sys/policies/acl/kms", json!({ "policy": policy })).await;
    post("team/auth/approle/role/kms", json!({"token_policies": "kms"})).await;
    let role = "team/auth/approle/role/kms/role-id";
    let role_id = admin.must(Method::GET, role, Value::Null).await;
    let secret_id = post("team/auth/approle/role/kms/secret-id", json!({})).await;
    Provisioned {
        key: "k".to_owned(),
        role_id: role_id["data"]["role_id"].as_str().unwrap().to_owned(),
        secret_id: secret_id["data"]["secret_id"].as_str().unwrap().to_owned(),
    }
}

#[tokio::test]
async fn a_key_in_a_child_of_the_logins_namespace_is_used() {
    let Some(server) = OpenBao::start_openbao().await else { return };
    let provisioned = provision(&server.admin).await;
    let namespace = |text: &str| Namespace::parse(text).unwrap();
    let subject = TransitSubject::with(server.admin.clone(), provisioned.clone(), |wiring| {
        wiring.login.namespace = namespace("team");
        wiring.transit.auth_namespace = namespace("team");
        wiring.transit.namespace = namespace("/team/app/");
    });
    let until = || subject.clock().now().after(Duration::from_secs(5));
    let (seed, bound) =
        (Plaintext::new(vec![7; 32]), AssociatedData::binding("id", &Annotations::ours()));
    let wrapped = subject.kek.wrap(KekVersion::FIRST, &seed, &bound, until()).await.unwrap();
    let sealed = Unwrap { ciphertext: &wrapped.ciphertext, associated_data: &bound };
    assert!(subject.kek.unwrap(sealed, until()).await.unwrap() == seed);

    let missing = TransitSubject::with(server.admin.clone(), provisioned, |wiring| {
        wiring.login.namespace = namespace("no-such");
    });
    let until = missing.clock().now().after(Duration::from_secs(5));
    let error = missing.kek.describe(until).await.unwrap_err();
    assert_eq!(error.code(), Code::KeyMissing, "{error}");
    assert!(error.remedy().contains("--vault-auth-namespace"), "{error}");
}
