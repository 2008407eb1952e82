//! Where HashiCorp Vault and OpenBao answer differently, each on the real server that the suite runs
//! on. docs/compatibility.md has the table.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use vault_kube_kms::{
    adapters::vault::{key_path::MountPath, vocabulary::ENTERPRISE_REQUIRED},
    domain::{
        envelope::{Annotations, AssociatedData, Ciphertext},
        error::Code,
        key::KekVersion,
        secret::Plaintext,
    },
    ports::kek::Unwrap,
    testkit::Subject as _,
};

use crate::{
    stand_in::{SOON, never_writes, within},
    support::{
        admin::Admin,
        openbao::{OpenBao, named_by_the_environment},
        transit::TransitSubject,
    },
};

/// A server that ends with this value, or one that the environment names.
pub struct Server {
    pub admin: Admin,
    /// Its version, such as 1.19.5. OpenBao starts with 2.
    version: String,
    _process: Option<OpenBao>,
}

impl Server {
    pub async fn start() -> Option<Self> {
        let (admin, process) = match named_by_the_environment() {
            Some(admin) => (admin, None),
            None => {
                let server = OpenBao::start().await?;
                (server.admin.clone(), Some(server))
            }
        };
        admin.mount().await;
        let version = admin.version().await;
        Some(Self { admin, version, _process: process })
    }

    /// The minor release of Vault. `None` for OpenBao.
    pub fn vault(&self) -> Option<u32> {
        let rest = self.version.strip_prefix("1.")?;
        rest.split('.').next()?.parse().ok()
    }

    /// Vault before 1.13 neither locks roles nor enforces associated data.
    pub fn is_old_vault(&self) -> bool {
        self.vault().is_some_and(|minor| minor < 13)
    }

    async fn refusal(&self, path: &str, body: Value) -> (u16, String) {
        let nobody = Admin::new(&self.admin.address, "unknown", self.admin.ca.clone());
        let (status, answer) = nobody.send(Method::POST, path, body).await.unwrap();
        (status, answer["errors"][0].as_str().unwrap_or_default().to_owned())
    }
}

/// A name that no other run of the suite uses.
pub fn name(of: &str) -> String {
    format!("{of}-{}", std::process::id())
}

#[tokio::test]
async fn a_community_edition_is_refused_where_enterprise_is_required() {
    let Some(server) = Server::start().await else { return };
    let key = name("licence");
    let provisioned = server.admin.provision(&key).await;
    let path = format!("sys/policies/acl/{key}-licence");
    let policy = json!({"policy": "path \"sys/license/status\" { capabilities = [\"read\"] }"});
    server.admin.must(Method::PUT, &path, policy).await;
    let role = format!("auth/approle/role/{key}");
    let both = json!({"token_policies": format!("{key},{key}-licence")});
    server.admin.must(Method::POST, &role, both).await;
    let subject = TransitSubject::with(server.admin.clone(), provisioned, |wiring| {
        wiring.transit.require_enterprise = true;
    });
    let error = subject.kek.describe(within(&subject, SOON)).await.unwrap_err();
    assert_eq!(error.code(), ENTERPRISE_REQUIRED, "{error}");
}

#[tokio::test]
async fn a_login_without_a_role_id_is_refused() {
    let Some(server) = Server::start().await else { return };
    let answer =
        server.refusal("auth/approle/login", json!({"role_id": "", "secret_id": "x"})).await;
    let text = match (server.vault().is_none(), server.is_old_vault()) {
        (true, _) => (500, "missing role_id"),
        (_, true) => (400, "missing role_id"),
        _ => (500, "failed to determine alias name from login request"),
    };
    assert_eq!((answer.0, answer.1.as_str()), text);
}

/// The client takes both texts for a dead token, and logs in again.
#[tokio::test]
async fn an_unknown_token_is_refused_with_403() {
    let Some(server) = Server::start().await else { return };
    let text = match server.vault() {
        Some(13..) => "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n",
        _ => "permission denied",
    };
    let refused = server.refusal("transit/encrypt/any", json!({})).await;
    assert_eq!(refused, (403, text.to_owned()));
}

#[tokio::test]
async fn a_missing_mount_is_told_from_a_locked_role() {
    let Some(server) = Server::start().await else { return };
    let provisioned = server.admin.provision(&name("locked")).await;
    let login = |at: &str| {
        let body = json!({"role_id": provisioned.role_id, "secret_id": "wrong"});
        let path = format!("auth/{at}/login");
        let server = &server;
        async move { server.refusal(&path, body).await }
    };
    let (status, text) = login("nowhere").await;
    assert_eq!((status, text.contains("permission denied")), (403, true), "{text}");
    let missing = TransitSubject::with(server.admin.clone(), provisioned.clone(), |wiring| {
        wiring.login.mount = MountPath::parse("nowhere").unwrap();
    });
    let error = missing.kek.describe(within(&missing, SOON)).await.unwrap_err();
    assert_eq!(error.code(), Code::LoginRefused);
    assert!(error.cause().contains("no auth method is mounted at auth/nowhere"), "{error}");

    for _ in 0..5 {
        assert_eq!(login("approle").await.0, 400);
    }
    let locked = TransitSubject::new(server.admin.clone(), provisioned.clone());
    let described = locked.kek.describe(within(&locked, SOON)).await;
    if server.is_old_vault() {
        described.expect("the server locks nobody");
        return;
    }
    let error = described.unwrap_err();
    assert_eq!(error.code(), Code::LoginRefused);
    assert!(error.cause().contains("the role is locked"), "{error}");

    // Refusals because of the lock do not count, so the login can be tried again and again.
    let mounts = server.admin.must(Method::GET, "sys/auth", Value::Null).await;
    let accessor = mounts["approle/"]["accessor"].as_str().unwrap().to_owned();
    let (role_id, admin) = (&provisioned.role_id, &server.admin);
    let unlock = format!("sys/locked-users/{accessor}/unlock/{role_id}");
    admin.must(Method::POST, &unlock, json!({})).await;
    let unlocked = locked.clock().now();
    let healed = async {
        while locked.kek.describe(within(&locked, SOON)).await.is_err() {
            locked.clock().sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), healed).await.expect("it notices the unlock");
    println!("the unlock is noticed after {:?}", locked.clock().now().since(unlocked));
}

#[tokio::test]
async fn an_old_vault_that_ignores_associated_data_never_writes() {
    let Some(server) = Server::start().await else { return };
    if server.is_old_vault() {
        let provisioned = server.admin.provision(&name("unbound")).await;
        never_writes(&TransitSubject::new(server.admin.clone(), provisioned)).await;
    }
}

/// Unwraps `count` copies of one ciphertext, and a ciphertext of a version to come in their middle.
async fn unwraps(admin: Admin, count: usize) {
    let provisioned = admin.provision(&name("batches")).await;
    let subject = TransitSubject::new(admin, provisioned);
    let bound = AssociatedData::binding("id", &Annotations::ours());
    let seed = Plaintext::new(vec![7; 32]);
    let until = within(&subject, SOON);
    let wrapped = subject.kek.wrap(KekVersion::FIRST, &seed, &bound, until).await.unwrap();
    let foreign = Ciphertext::new(b"vault:v9:AAAA".to_vec()).unwrap();
    let item = |ciphertext| Unwrap { ciphertext, associated_data: &bound };
    let mut items = vec![item(&wrapped.ciphertext); count];
    items[count / 2] = item(&foreign);
    let outcomes = subject.kek.unwrap_many(&items, within(&subject, 4 * SOON)).await;
    for (at, outcome) in outcomes.into_iter().enumerate() {
        let failed = outcome.err().map(|error| error.code());
        assert_eq!(failed, (at == count / 2).then_some(Code::VersionNotYet), "item {at}");
    }
}

/// Vault has no limit on the number of strings in a request. OpenBao refuses more than about a
/// thousand.
#[tokio::test]
async fn large_batches_are_unwrapped_on_every_server() {
    let Some(server) = Server::start().await else { return };
    unwraps(server.admin.clone(), 1_000).await;
}

/// Vault has limits on JSON from 1.21 on, and answers with the status 500.
#[tokio::test]
async fn a_limit_of_the_listener_on_json_halves_a_batch() {
    let Some(server) = Server::start().await else { return };
    if server.vault().is_none_or(|minor| minor < 21) {
        return;
    }
    let Some(limited) = OpenBao::start_with_arguments(&["-max-json-array=20"]).await else {
        return;
    };
    limited.admin.mount().await;
    unwraps(limited.admin.clone(), 100).await;
}
