//! The actions of an operator at a Vault or OpenBao server: plain requests with a root token.

use std::{fs, path::Path};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use vault_kube_kms::adapters::vault::tls::{Identity, TlsSettings, Trust};

/// A server and its root token.
#[derive(Clone)]
pub struct Admin {
    pub address: String,
    pub ca: Option<Vec<u8>>,
    token: String,
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// The settings by which a provider reaches one key.
#[derive(Clone, Debug)]
pub struct Provisioned {
    pub key: String,
    pub role_id: String,
    pub secret_id: String,
}

impl Admin {
    pub fn new(address: &str, token: &str, ca: Option<Vec<u8>>) -> Self {
        let trust = ca.clone().map_or(Trust::System, Trust::Bundle);
        let tls =
            TlsSettings { trust, identity: Identity::None, server_name: None, require_pq: false }
                .client_config()
                .unwrap();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Self { address: address.to_owned(), ca, token: token.to_owned(), http }
    }

    /// Sends a request below `/v1/`. Returns the status and the JSON of the answer.
    pub async fn send(&self, method: Method, path: &str, body: Value) -> Option<(u16, Value)> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/{path}", self.address))
            .header("x-vault-token", &self.token)
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        let response = self.http.request(request).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// Sends a request that must succeed.
    pub async fn must(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.send(method, path, body).await.expect("the server answers");
        assert!(status < 300, "{path}: {status} {answer}");
        answer
    }

    /// Returns its root token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Returns whether the server is ready to serve.
    pub async fn is_ready(&self) -> bool {
        let answer = self.send(Method::GET, "sys/health", Value::Null).await;
        answer.is_some_and(|(status, _)| status == 200)
    }

    /// Returns the version of the server.
    pub async fn version(&self) -> String {
        let health = self.must(Method::GET, "sys/health", Value::Null).await;
        health["version"].as_str().unwrap().to_owned()
    }

    /// Mounts the engines that [`Admin::provision`] uses, unless they exist.
    pub async fn mount(&self) {
        let _there =
            self.send(Method::POST, "sys/mounts/transit", json!({"type": "transit"})).await;
        let _there = self.send(Method::POST, "sys/auth/approle", json!({"type": "approle"})).await;
    }

    /// Makes a key `name`, and a role with the minimal policy for it.
    pub async fn provision(&self, name: &str) -> Provisioned {
        self.provision_as(name, ordinary_key()).await
    }

    /// The same, with the settings of the key.
    pub async fn provision_as(&self, name: &str, key: Value) -> Provisioned {
        self.create(name, key).await;
        let policy = format!(
            "path \"transit/encrypt/{name}\" {{ capabilities = [\"update\"] }}\n\
             path \"transit/decrypt/{name}\" {{ capabilities = [\"update\"] }}\n\
             path \"transit/keys/{name}\" {{ capabilities = [\"read\"] }}\n"
        );
        let policy_path = format!("sys/policies/acl/{name}");
        self.must(Method::PUT, &policy_path, json!({ "policy": policy })).await;
        let role = format!("auth/approle/role/{name}");
        let settings = json!({"token_policies": name, "token_ttl": "60s", "token_max_ttl": "120s"});
        self.must(Method::POST, &role, settings).await;
        let role_id = self.must(Method::GET, &format!("{role}/role-id"), Value::Null).await;
        let secret_id = self.must(Method::POST, &format!("{role}/secret-id"), json!({})).await;
        Provisioned {
            key: name.to_owned(),
            role_id: role_id["data"]["role_id"].as_str().unwrap().to_owned(),
            secret_id: secret_id["data"]["secret_id"].as_str().unwrap().to_owned(),
        }
    }

    /// Returns the same server with a token of a role, because a token with a policy costs a
    /// server more than a root token does.
    pub async fn logged_in(&self, role: &Provisioned) -> Self {
        let body = json!({"role_id": role.role_id, "secret_id": role.secret_id});
        let answer = self.must(Method::POST, "auth/approle/login", body).await;
        let token = answer["auth"]["client_token"].as_str().unwrap();
        Self::new(&self.address, token, self.ca.clone())
    }

    /// Returns the flags of a provider for `role`, and writes their files to `directory`.
    pub fn provider_args(&self, role: &Provisioned, directory: &Path) -> Vec<String> {
        let (ca, secret_id) = (directory.join("ca.pem"), directory.join("secret-id"));
        fs::write(&ca, self.ca.as_ref().unwrap()).unwrap();
        fs::write(&secret_id, &role.secret_id).unwrap();
        vec![
            format!("--vault-address={}", self.address),
            format!("--transit-key={}", role.key),
            format!("--approle-role-id={}", role.role_id),
            format!("--approle-secret-id-path={}", secret_id.display()),
            format!("--tls-ca-file={}", ca.display()),
        ]
    }

    pub async fn rotate(&self, key: &str) {
        self.must(Method::POST, &format!("transit/keys/{key}/rotate"), json!({})).await;
    }

    async fn create(&self, key: &str, settings: Value) {
        self.must(Method::POST, &format!("transit/keys/{key}"), settings).await;
    }

    /// Forbids unwrapping with `version` of `key` and with lower versions.
    pub async fn retire(&self, key: &str, version: u32) {
        let settings = json!({"min_decryption_version": version + 1});
        self.must(Method::POST, &format!("transit/keys/{key}/config"), settings).await;
    }

    /// Deletes `key`, and makes another one of that name.
    pub async fn replace(&self, key: &str) {
        let path = format!("transit/keys/{key}");
        self.must(Method::POST, &format!("{path}/config"), json!({"deletion_allowed": true})).await;
        self.must(Method::DELETE, &path, Value::Null).await;
        self.create(key, ordinary_key()).await;
    }
}

/// Returns the settings of a key whose versions are in the server.
fn ordinary_key() -> Value {
    json!({"type": "aes256-gcm96"})
}
