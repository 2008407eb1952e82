//! Settings of roles and keys on a real server, and what the keeper says of them.

use http::Method;
use serde_json::{Value, json};
use vault_kube_kms::domain::error::Code;

use crate::{
    differences::{Server, name},
    stand_in::{SOON, within},
    support::transit::TransitSubject,
};

/// A keeper without a secret ID, on a role with these settings.
async fn without_a_secret_id(server: &Server, of: &str, role: Value) -> TransitSubject {
    let provisioned = server.admin.provision(&name(of)).await;
    let path = format!("auth/approle/role/{}", provisioned.key);
    server.admin.must(Method::POST, &path, role).await;
    TransitSubject::with(server.admin.clone(), provisioned, |wiring| {
        wiring.approle().secret_id_path = None;
    })
}

#[tokio::test]
async fn a_role_without_a_secret_id_is_logged_in_to_with_the_role_id_alone() {
    let Some(server) = Server::start().await else { return };
    let role = json!({"bind_secret_id": false, "token_bound_cidrs": "127.0.0.0/8"});
    let subject = without_a_secret_id(&server, "alone", role).await;
    subject.kek.describe(within(&subject, SOON)).await.unwrap();
}

#[tokio::test]
async fn the_refusal_of_a_login_without_a_secret_id_names_the_flag() {
    let Some(server) = Server::start().await else { return };
    let subject = without_a_secret_id(&server, "bound", json!({})).await;
    let error = subject.kek.describe(within(&subject, SOON)).await.unwrap_err();
    assert_eq!(error.code(), Code::LoginRefused);
    assert!(error.remedy().contains("--approle-secret-id-path"), "{error}");
    assert!(error.remedy().contains("bind_secret_id=false"), "{error}");
}

#[tokio::test]
async fn keys_that_cannot_bind_are_described_with_the_reason() {
    let Some(server) = Server::start().await else { return };
    for (kind, key) in [
        ("rsa", json!({"type": "rsa-2048"})),
        ("derived", json!({"type": "aes256-gcm96", "derived": true})),
        (
            "convergent",
            json!({"type": "aes256-gcm96", "derived": true, "convergent_encryption": true}),
        ),
    ] {
        let provisioned = server.admin.provision_as(&name(kind), key).await;
        let subject = TransitSubject::new(server.admin.clone(), provisioned);
        let snapshot = subject.kek.describe(within(&subject, SOON)).await.unwrap();
        assert_eq!(snapshot.flaw.map(|flaw| flaw.code()), Some(Code::KeyUnusable), "{kind}");
    }
}
