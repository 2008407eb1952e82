//! The answers of the stand-in and of a real server to the same requests: what the stand-in answers
//! must be what the server answers.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use crate::{
    differences::Server,
    support::{
        admin::{Admin, Provisioned},
        stand_in::StandIn,
    },
};

/// The part of an answer that is compared.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    errors: Vec<String>,
    /// The error and the reference of each item of a batch.
    items: Vec<(String, String)>,
    /// The names in `data` and `auth`, and the types of their values.
    fields: BTreeMap<String, &'static str>,
}

impl Seen {
    fn of((status, answer): (u16, Value)) -> Self {
        let texts = |value: &Value| match value {
            Value::Array(texts) => texts.iter().map(text).collect(),
            _ => Vec::new(),
        };
        let items = answer["data"]["batch_results"].as_array().cloned().unwrap_or_default();
        let items = items.iter().map(|item| (text(&item["error"]), text(&item["reference"])));
        let fields = ["data", "auth"].iter().filter_map(|part| answer[part].as_object());
        let fields = fields.flatten().map(|(name, value)| (name.clone(), kind(value)));
        Self {
            status,
            errors: texts(&answer["errors"]),
            items: items.collect(),
            fields: fields.collect(),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Sends one request after the other for the key and the role of `provisioned`.
async fn observe(server: &Admin, provisioned: &Provisioned) -> Vec<(&'static str, Seen)> {
    let Provisioned { key, role_id, secret_id } = provisioned;
    let mut seen = Vec::new();
    let nobody = Admin::new(&server.address, "unknown", server.ca.clone());
    let mut see = |name, answer: Option<(u16, Value)>| seen.push((name, Seen::of(answer.unwrap())));

    let log_in = |body| nobody.send(Method::POST, "auth/approle/login", body);
    see("a login", log_in(json!({"role_id": role_id, "secret_id": secret_id})).await);
    see("a wrong secret ID", log_in(json!({"role_id": role_id, "secret_id": "wrong"})).await);
    see("a wrong role ID", log_in(json!({"role_id": "wrong", "secret_id": secret_id})).await);
    see("no secret ID", log_in(json!({ "role_id": role_id })).await);
    let login_path = "auth/approle/login";
    see("a read of a login path", nobody.send(Method::GET, login_path, Value::Null).await);
    let wrapping = json!({"token": "unknown"});
    let lookup = nobody.send(Method::POST, "sys/wrapping/lookup", wrapping.clone()).await;
    see("a look-up of an unknown wrapping token", lookup);
    let unwrap = nobody.send(Method::POST, "sys/wrapping/unwrap", wrapping).await;
    see("an unwrap with an unknown wrapping token", unwrap);
    let read = format!("transit/keys/{key}");
    see("an unknown token", nobody.send(Method::GET, &read, Value::Null).await);

    let user = nobody.logged_in(provisioned).await;
    see("a read of the key", user.send(Method::GET, &read, Value::Null).await);
    let forbidden = format!("transit/backup/{key}");
    see("a path that no policy allows", user.send(Method::GET, &forbidden, Value::Null).await);

    let encrypt = |body| {
        let (user, path) = (user.clone(), format!("transit/encrypt/{key}"));
        async move { user.send(Method::POST, &path, body).await }
    };
    let decrypt = |body| {
        let (user, path) = (user.clone(), format!("transit/decrypt/{key}"));
        async move { user.send(Method::POST, &path, body).await }
    };
    let made = encrypt(json!({"plaintext": "AAAA", "associated_data": "QUFE"})).await;
    let ciphertext = text(&made.as_ref().unwrap().1["data"]["ciphertext"]);
    see("an encrypt request", made);
    let newer = json!({"plaintext": "AAAA", "key_version": 9});
    see("an encrypt request with a version to come", encrypt(newer).await);
    let bound = |text: &str| json!({"ciphertext": text, "associated_data": "QUFE"});
    see("a decrypt request", decrypt(bound(&ciphertext)).await);
    see(
        "other associated data",
        decrypt(json!({"ciphertext": ciphertext, "associated_data": "AAAA"})).await,
    );
    see("a version to come", decrypt(bound(&ciphertext.replace("v1", "v9"))).await);
    see("no prefix", decrypt(bound("AAAA")).await);
    see("no version", decrypt(bound("vault:v1")).await);
    see("a version that is not a number", decrypt(bound("vault:vx:AAAA")).await);
    see("no Base64", decrypt(bound("vault:v1:%")).await);
    see("a short ciphertext", decrypt(bound("vault:v1:AAAA")).await);

    let item = |ciphertext: &str, number: u8| json!({"ciphertext": ciphertext, "associated_data": "QUFE", "reference": format!("{number}.x")});
    let batch = json!({"batch_input": [item(&ciphertext, 0), item(&ciphertext, 1)]});
    see("a batch", decrypt(batch).await);
    let mixed = json!({"batch_input": [item("vault:v1:AAAA", 0), item(&ciphertext, 1)]});
    see("a batch with an item that fails", decrypt(mixed).await);

    let ends = |path| user.send(Method::POST, path, json!({}));
    see("a renewal", ends("auth/token/renew-self").await);
    see("a revocation", ends("auth/token/revoke-self").await);
    see("a revoked token", user.send(Method::GET, &read, Value::Null).await);
    seen
}

/// The requests that Vault refuses with another text than OpenBao. The module `differences` has them.
const TEXTS_OF_VAULT: [&str; 3] = ["an unknown token", "a revoked token", "a read of a login path"];

#[tokio::test]
async fn the_stand_in_answers_as_a_real_server_does() {
    let Some(server) = Server::start().await else { return };
    if server.is_old_vault() {
        // The stand-in plays a server of today.
        return;
    }
    let admin = &server.admin;
    let provisioned = admin.provision(&format!("answers-{}", std::process::id())).await;
    let real = observe(admin, &provisioned).await;
    let stand_in = StandIn::start().await;
    let played = Admin::new(&stand_in.address, "unused", Some(stand_in.ca.clone()));
    let played = observe(&played, &stand_in.provisioned).await;
    for ((name, played), (_, real)) in played.iter().zip(&real) {
        // Vault has other texts than OpenBao, which the stand-in plays.
        if server.vault().is_none() || !TEXTS_OF_VAULT.contains(name) {
            assert_eq!(real.errors, played.errors, "{name}");
        }
        assert_eq!((real.status, &real.items), (played.status, &played.items), "{name}");
        for (field, kind) in &played.fields {
            assert_eq!(real.fields.get(field), Some(kind), "{name}: {field} in {real:?}");
        }
    }
}
