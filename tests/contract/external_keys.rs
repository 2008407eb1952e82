//! OpenBao's external keys: the KEK of the Transit engine is in another keeper. Here this is the
//! Transit engine of a second server, used through OpenBao's built-in plugin.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use http::Method;
use serde_json::json;
use vault_kube_kms::{
    domain::{
        envelope::{Annotations, AssociatedData},
        error::Code,
        key::KekVersion,
        secret::Plaintext,
        time::CALL_BUDGET,
    },
    ports::{
        clock::Clock,
        kek::{Kek, Unwrap},
    },
    testkit::{Hook, Subject, hold_to_every_rule},
};

use crate::support::{admin::Admin, openbao::OpenBao, transit::TransitSubject};

/// A key whose versions are references to keys of `inner`.
struct External {
    transit: TransitSubject,
    versions: AtomicU32,
}

impl External {
    async fn new(outer: &Admin, inner: &Admin, name: &str) -> Self {
        let config = json!({
            "plugin": "transit",
            "address": inner.address,
            "token": inner.token(),
            "mount_path": "transit",
            "tls_ca_cert_bytes": String::from_utf8(inner.ca.clone().unwrap()).unwrap(),
        });
        outer.must(Method::PUT, &format!("sys/external-keys/configs/{name}"), config).await;
        let reference = refer(outer, inner, name, 1).await;
        let key = json!({"type": "external-key", "external_key_ref": reference});
        let provisioned = outer.provision_as(name, key).await;
        let transit = TransitSubject::new(outer.clone(), provisioned);
        Self { transit, versions: AtomicU32::new(1) }
    }

    async fn rotate(&self, inner: &Admin) {
        let (outer, name) = (&self.transit.admin, &self.transit.key);
        let number = self.versions.fetch_add(1, Ordering::SeqCst) + 1;
        let reference = refer(outer, inner, name, number).await;
        let body = json!({"external_key_ref": reference});
        outer.must(Method::POST, &format!("transit/keys/{name}/rotate"), body).await;
    }
}

/// Makes a key at `inner`, and makes the Transit engine of `outer` use it. Returns its name at
/// `outer`.
async fn refer(outer: &Admin, inner: &Admin, name: &str, number: u32) -> String {
    let key = format!("{name}-{number}");
    let kind = json!({"type": "aes256-gcm96"});
    inner.must(Method::POST, &format!("transit/keys/{key}"), kind).await;
    let path = format!("sys/external-keys/configs/{name}/keys/{key}");
    outer.must(Method::PUT, &path, json!({"name": key, "version": 1})).await;
    outer.must(Method::PUT, &format!("{path}/grants/transit"), json!({})).await;
    format!("{name}:{key}")
}

/// The servers of one rule. `inner` has the keys.
struct Ruled {
    external: External,
    inner: Admin,
}

#[async_trait]
impl Subject for Ruled {
    fn kek(&self) -> Arc<dyn Kek> {
        self.external.transit.kek()
    }

    async fn rotate(&self) {
        self.external.rotate(&self.inner).await;
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.external.transit.clock()
    }

    async fn retire(&self, version: KekVersion) -> Hook {
        self.external.transit.retire(version).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_external_key_keeps_every_rule() {
    let Some(server) = OpenBao::start_openbao().await else { return };
    server.admin.mount().await;
    hold_to_every_rule(|rule| {
        let (outer, inner) = (server.admin.clone(), server.admin.clone());
        async move {
            let external = External::new(&outer, &inner, &format!("x-{rule}")).await;
            Ruled { external, inner }
        }
    })
    .await;
}

/// The text of such a failure says "failed to decrypt", but the stored object is not the cause.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_an_outage_of_the_other_keeper_as_an_outage() {
    let Some(outer) = OpenBao::start_openbao().await else { return };
    let Some(inner) = OpenBao::start_openbao().await else { return };
    outer.admin.mount().await;
    inner.admin.mount().await;
    let external = External::new(&outer.admin, &inner.admin, "away").await;
    let (kek, clock) = (external.transit.kek(), external.transit.clock());
    let until = || clock.now().after(CALL_BUDGET);
    let (seed, bound) =
        (Plaintext::new(vec![7; 32]), AssociatedData::binding("a", &Annotations::ours()));
    let wrapped = kek.wrap(KekVersion::FIRST, &seed, &bound, until()).await.unwrap();
    drop(inner);
    let sealed = Unwrap { ciphertext: &wrapped.ciphertext, associated_data: &bound };
    let error = kek.unwrap(sealed, until()).await.unwrap_err();
    assert!(error.code().is_outage(), "{error}");
    let error = kek.wrap(KekVersion::FIRST, &seed, &bound, until()).await.unwrap_err();
    assert!(error.code().is_outage(), "{error}");
    for outcome in kek.unwrap_many(&[sealed, sealed], until()).await {
        let error = outcome.unwrap_err();
        assert!(error.code() != Code::CiphertextRejected, "{error}");
    }
}
