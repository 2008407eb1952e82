//! The model's Transit key. Its cipher does not hide the plaintext, and binds it: a wrong
//! plaintext, version or associated data is detected.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::chance::Chance;

/// A status and a body.
pub type Reply = (u16, Value);

/// A refusal with one text.
pub fn refusal(status: u16, text: &str) -> Reply {
    (status, json!({ "errors": [text] }))
}

const NONCE: usize = 8;
const TAG: usize = 16;

/// With wrong plaintexts, ciphertexts whose nonces begin lower than this unwrap to another
/// plaintext.
const LIES_BELOW: u8 = 8;

/// One key. Each version has its creation time in seconds.
#[derive(Default)]
pub struct Transit {
    created: Vec<i64>,
    /// A few of all ciphertexts unwrap to something else than was wrapped.
    pub lies: bool,
    /// The server refuses batches, as an old server does.
    pub refuses_batches: bool,
    /// An item of a batch fails by the server's own fault once in this number of times.
    pub items_fail_once_in: Option<u64>,
}

impl Transit {
    pub fn rotate(&mut self, wall_secs: i64) {
        self.created.push(wall_secs);
    }

    pub fn latest(&self) -> u32 {
        self.created.len() as u32
    }

    /// Returns the metadata of the key at a node that knows the versions up to `known`.
    pub fn read(&self, known: u32) -> Reply {
        let versions: serde_json::Map<_, _> = (1..)
            .zip(&self.created)
            .take(known as usize)
            .map(|(version, created): (u32, _)| (version.to_string(), json!(created)))
            .collect();
        let data = json!({"type": "aes256-gcm96", "latest_version": known,
            "min_decryption_version": 1, "min_encryption_version": 0, "keys": versions});
        (200, json!({ "data": data }))
    }

    pub fn encrypt(&self, body: &Value, known: u32, mut draw: Chance) -> Reply {
        let version = body["key_version"].as_u64().unwrap() as u32;
        if version > known {
            return refusal(
                400,
                "requested version for encryption is higher than the latest key version",
            );
        }
        let plaintext = bytes(&body["plaintext"]);
        let nonce = draw.next().to_be_bytes();
        let bound = bytes(&body["associated_data"]);
        let mut sealed = nonce.to_vec();
        sealed.extend(masked(version, &nonce, &plaintext));
        sealed.extend(tag(version, &nonce, &bound, &plaintext));
        let ciphertext = format!("vault:v{version}:{}", STANDARD.encode(sealed));
        (200, json!({"data": {"ciphertext": ciphertext, "key_version": version}}))
    }

    /// Wraps `plaintext` with the newest version and without associated data.
    pub fn encrypt_unbound(&self, plaintext: &[u8], draw: &mut Chance) -> Vec<u8> {
        let version = self.latest();
        let body = json!({"plaintext": STANDARD.encode(plaintext), "key_version": version});
        let (_, reply) = self.encrypt(&body, version, Chance::new(draw.next()));
        reply["data"]["ciphertext"].as_str().unwrap().as_bytes().to_vec()
    }

    pub fn decrypt(&self, body: &Value, known: u32) -> Reply {
        let text = body["ciphertext"].as_str().unwrap();
        let (version, sealed) = text.strip_prefix("vault:v").unwrap().split_once(':').unwrap();
        let version: u32 = version.parse().unwrap();
        if version > known {
            return refusal(400, "invalid ciphertext: version is too new");
        }
        let sealed = STANDARD.decode(sealed).unwrap();
        let (nonce, sealed) = sealed.split_at(NONCE);
        let (hidden, sent_tag) = sealed.split_at(sealed.len() - TAG);
        let mut plaintext = masked(version, nonce, hidden);
        if tag(version, nonce, &bytes(&body["associated_data"]), &plaintext) != sent_tag {
            return refusal(400, "cipher: message authentication failed");
        }
        if self.lies && nonce[0] < LIES_BELOW {
            plaintext[0] ^= 1;
        }
        (200, json!({"data": {"plaintext": STANDARD.encode(plaintext)}}))
    }

    /// The status is 400 when the caller caused any failure, and 500 when the server caused all,
    /// as real servers answer.
    pub fn decrypt_batch(&self, items: &[Value], known: u32, mut draw: Chance) -> Reply {
        if self.refuses_batches {
            return refusal(400, "missing ciphertext to decrypt");
        }
        let mut status = 200;
        let mut result = |item: &Value| {
            if self.items_fail_once_in.is_some_and(|rarity| draw.once_in(rarity)) {
                status = status.max(500);
                return json!({"plaintext": "", "error": "storage is gone", "reference": ""});
            }
            match self.decrypt(item, known) {
                (200, reply) => json!({"plaintext": reply["data"]["plaintext"], "reference": ""}),
                (_, reply) => {
                    // One failure by the caller decides the status.
                    status = 400;
                    json!({"plaintext": "", "error": reply["errors"][0], "reference": ""})
                }
            }
        };
        let results: Vec<_> = items.iter().map(&mut result).collect();
        (status, json!({"data": {"batch_results": results}}))
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap_or_default()).unwrap()
}

fn masked(version: u32, nonce: &[u8], text: &[u8]) -> Vec<u8> {
    let stream = Sha256::new().chain_update(version.to_be_bytes()).chain_update(nonce).finalize();
    text.iter().zip(stream.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
}

fn tag(version: u32, nonce: &[u8], bound: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let of = Sha256::new().chain_update(version.to_be_bytes()).chain_update(nonce);
    let of = of.chain_update((bound.len() as u64).to_be_bytes()).chain_update(bound);
    of.chain_update(plaintext).finalize()[..TAG].to_vec()
}
