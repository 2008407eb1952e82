//! The stand-in's Transit key and AppRole. They check requests in the order of real servers.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use vault_kube_kms::{adapters::system::clock::SystemClock, ports::clock::Clock};

use super::{Manner, StandIn};

pub const ROLE_ID: &str = "role-of-the-tests";
pub const SECRET_ID: &str = "secret-id-canary-0001";

/// A status and a body.
pub type Reply = (u16, Value);

struct Version {
    created: i64,
    key: [u8; 32],
}

/// The state of the stand-in.
pub struct Engine {
    manner: Manner,
    pub secret_id: String,
    pub token_ttl: u64,
    pub token_num_uses: u64,
    /// The valid wrapping token, and the `creation_path` of its content.
    pub wrapping: Option<(String, String)>,
    tokens: BTreeSet<String>,
    issued: u64,
    versions: BTreeMap<u32, Version>,
    /// The newest version that the answering node knows.
    pub known: u32,
    cluster: String,
    /// The sizes of the received batches.
    pub batches: Vec<usize>,
    /// The server refuses batches, as an old server does.
    pub refuses_batches: bool,
    /// Whether each result of a batch has the `reference` of its item, as with OpenBao 2.7.2.
    pub echoes: bool,
    /// Changes the results of each batch before they are sent.
    pub mixes_up: Option<fn(&mut Vec<Value>)>,
    /// An item of a batch with this ciphertext fails by the server's own fault.
    pub fails_inside: Option<String>,
    pub min_decryption: u32,
    pub min_encryption: u32,
}

impl Engine {
    pub fn new(manner: Manner) -> Self {
        let mut engine = Self {
            manner,
            secret_id: SECRET_ID.to_owned(),
            token_ttl: 60,
            token_num_uses: 0,
            wrapping: None,
            tokens: BTreeSet::new(),
            issued: 0,
            versions: BTreeMap::new(),
            known: u32::MAX,
            cluster: format!("cluster-{}", random()),
            batches: Vec::new(),
            refuses_batches: false,
            echoes: true,
            mixes_up: None,
            fails_inside: None,
            min_decryption: 1,
            min_encryption: 0,
        };
        engine.rotate();
        engine
    }

    pub fn rotate(&mut self) {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).unwrap();
        let created = SystemClock::new().wall().secs();
        let next = self.newest() + 1;
        self.versions.insert(next, Version { created, key });
    }

    /// Replaces the key by another one with one version.
    pub fn replace(&mut self) {
        self.versions.clear();
        self.min_decryption = 1;
        self.rotate();
    }

    pub fn expire_tokens(&mut self) {
        self.tokens.clear();
    }

    pub fn newest(&self) -> u32 {
        self.versions.last_key_value().map_or(0, |(version, _)| *version)
    }

    fn latest(&self) -> u32 {
        self.newest().min(self.known)
    }

    pub fn answer(&mut self, path: &str, token: Option<&str>, body: &Value) -> Reply {
        let key = StandIn::KEY;
        match path {
            "auth/approle/login" => return self.login(body),
            "sys/wrapping/lookup" | "sys/wrapping/unwrap" => {
                return self.wrapping(path, body["token"].as_str().or(token));
            }
            "sys/health" => return (429, json!({"sealed": false, "cluster_id": self.cluster})),
            _ => (),
        }
        if !token.is_some_and(|token| self.tokens.contains(token)) {
            return error(403, "permission denied");
        }
        match path {
            "auth/token/renew-self" => (200, self.auth(token.unwrap())),
            "auth/token/revoke-self" => {
                self.tokens.remove(token.unwrap());
                (204, Value::Null)
            }
            "sys/license/status" if self.manner.enterprise => {
                (200, json!({"data": {"autoloaded": {"license_id": "x"}}}))
            }
            "sys/license/status" => error(404, "1 error occurred:\n\t* unsupported path\n\n"),
            _ if path == format!("transit/keys/{key}") => self.read(),
            _ if path == format!("transit/keys/{key}/rotate") => {
                self.rotate();
                self.read()
            }
            _ if path == format!("transit/encrypt/{key}") => self.encrypt(body),
            _ if path == format!("transit/decrypt/{key}") && !body["batch_input"].is_null() => {
                self.decrypt_batch(&body["batch_input"])
            }
            _ if path == format!("transit/decrypt/{key}") => self.decrypt(body),
            _ => error(403, "1 error occurred:\n\t* permission denied\n\n"),
        }
    }

    fn login(&mut self, body: &Value) -> Reply {
        if body["role_id"].is_null() {
            return error(500, "missing role_id");
        }
        if body["secret_id"].is_null() {
            return error(400, "missing secret_id");
        }
        if body["role_id"] != ROLE_ID || body["secret_id"] != self.secret_id.as_str() {
            return error(400, "invalid role or secret ID");
        }
        self.issued += 1;
        let token = format!("s.token-canary-{:04}", self.issued);
        self.tokens.insert(token.clone());
        (200, self.auth(&token))
    }

    /// Returns the number of tokens that were given and have not ended.
    pub fn live_tokens(&self) -> usize {
        self.tokens.len()
    }

    fn wrapping(&mut self, path: &str, token: Option<&str>) -> Reply {
        let good = self.wrapping.as_ref().filter(|(good, _)| Some(good.as_str()) == token);
        let Some((_, created_at)) = good else {
            return error(400, "wrapping token is not valid or does not exist");
        };
        if path == "sys/wrapping/lookup" {
            return (200, json!({"data": {"creation_path": created_at}}));
        }
        self.wrapping = None;
        (200, json!({"data": {"secret_id": self.secret_id}}))
    }

    fn auth(&self, token: &str) -> Value {
        json!({"data": null, "auth": {"client_token": token, "lease_duration": self.token_ttl,
            "renewable": true, "num_uses": self.token_num_uses, "token_type": "service"}})
    }

    fn read(&self) -> Reply {
        let kept = self.versions.range(self.min_decryption..=self.latest());
        let keys: BTreeMap<_, _> = kept.map(|(n, v)| (n.to_string(), v.created)).collect();
        let data = json!({"name": StandIn::KEY, "type": "aes256-gcm96", "keys": keys,
            "latest_version": self.latest(), "min_decryption_version": self.min_decryption,
            "min_encryption_version": self.min_encryption, "min_available_version": 0,
            "derived": false, "exportable": false, "deletion_allowed": false});
        (200, json!({ "data": data }))
    }

    fn encrypt(&self, body: &Value) -> Reply {
        let Some(plaintext) = bytes(&body["plaintext"]) else {
            return error(400, "missing plaintext to encrypt");
        };
        let version = match body["key_version"].as_u64().unwrap_or(0) as u32 {
            0 => self.latest(),
            version => version,
        };
        if version > self.latest() {
            return error(
                400,
                "requested version for encryption is higher than the latest key version",
            );
        }
        if version < self.min_encryption {
            return error(
                400,
                "requested version for encryption is less than the minimum encryption key version",
            );
        }
        if version < self.min_decryption {
            return error(400, "no such key version");
        }
        let key = self.cipher(version);
        let mut sealed = plaintext;
        let aad = Aad::from(self.associated_data(body));
        let nonce = key.seal_in_place_append_tag(aad, &mut sealed).unwrap();
        let body = STANDARD.encode([nonce.as_ref().as_slice(), &sealed].concat());
        let ciphertext = format!("vault:v{version}:{body}");
        (200, json!({"data": {"ciphertext": ciphertext, "key_version": version}}))
    }

    fn decrypt(&self, body: &Value) -> Reply {
        let text = body["ciphertext"].as_str().unwrap_or_default();
        let Some(rest) = text.strip_prefix("vault:v") else {
            return error(400, "invalid ciphertext: no prefix");
        };
        let Some((number, sealed)) = rest.split_once(':') else {
            return error(400, "invalid ciphertext: wrong number of fields");
        };
        let Ok(version) = number.parse::<u32>() else {
            return error(400, "invalid ciphertext: version number could not be decoded");
        };
        if version > self.latest() {
            return error(400, "invalid ciphertext: version is too new");
        }
        if version < self.min_decryption || !self.versions.contains_key(&version) {
            return error(400, "ciphertext or signature version is disallowed by policy (too old)");
        }
        let Ok(sealed) = STANDARD.decode(sealed) else {
            return error(400, "invalid ciphertext: could not decode base64");
        };
        if sealed.len() < 12 {
            return error(400, "invalid ciphertext length");
        }
        let (nonce, sealed) = sealed.split_at(12);
        let nonce = Nonce::try_assume_unique_for_key(nonce).unwrap();
        let mut buffer = sealed.to_vec();
        let aad = Aad::from(self.associated_data(body));
        match self.cipher(version).open_in_place(nonce, aad, &mut buffer) {
            Ok(plaintext) => (200, json!({"data": {"plaintext": STANDARD.encode(plaintext)}})),
            Err(_) => error(400, "cipher: message authentication failed"),
        }
    }

    /// The status is 400 when the caller caused any failure, and 500 when the server caused all,
    /// as real servers answer.
    fn decrypt_batch(&mut self, items: &Value) -> Reply {
        let items = items.as_array().cloned().unwrap_or_default();
        self.batches.push(items.len());
        if self.refuses_batches {
            return error(400, "missing ciphertext to decrypt");
        }
        let (mut callers, mut ours) = (false, false);
        let mut results: Vec<_> = items
            .iter()
            .map(|item| {
                let reference = if self.echoes { &item["reference"] } else { &json!("") };
                if self.fails_inside.as_deref().is_some_and(|text| item["ciphertext"] == text) {
                    ours = true;
                    return json!({"plaintext": "", "error": "storage is gone", "reference": reference});
                }
                let (status, reply) = self.decrypt(item);
                if status == 200 {
                    json!({"plaintext": reply["data"]["plaintext"], "reference": reference})
                } else {
                    callers = true;
                    json!({"plaintext": "", "error": reply["errors"][0], "reference": reference})
                }
            })
            .collect();
        if let Some(mix_up) = self.mixes_up {
            mix_up(&mut results);
        }
        let status = match (callers, ours) {
            (true, _) => 400,
            (false, true) => 500,
            (false, false) => 200,
        };
        (status, json!({"data": {"batch_results": results}}))
    }

    fn cipher(&self, version: u32) -> RandomizedNonceKey {
        RandomizedNonceKey::new(&AES_256_GCM, &self.versions[&version].key).unwrap()
    }

    fn associated_data(&self, body: &Value) -> Vec<u8> {
        if self.manner.ignores_associated_data {
            return Vec::new();
        }
        bytes(&body["associated_data"]).unwrap_or_default()
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(value.as_str()?).ok()
}

fn error(status: u16, text: &str) -> Reply {
    (status, json!({ "errors": [text] }))
}
