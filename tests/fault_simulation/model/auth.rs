//! The model's AppRole and its tokens, with the lockout that real servers have.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::transit::{Reply, refusal};

/// The servers' defaults.
pub const LOCKOUT_FAILURES: u32 = 5;
const LOCKOUT: Duration = Duration::from_mins(15);

pub const ROLE_ID: &str = "role-of-the-model";

/// The refusal of a wrapping token.
pub const USED: &str = "wrapping token is not valid or does not exist";

struct Token {
    expires: Instant,
    ends: Instant,
}

/// One role.
pub struct Auth {
    pub exists: bool,
    /// The number of uses of a token. 0 means no limit.
    pub num_uses: u32,
    pub token_ttl: Duration,
    pub token_max_ttl: Duration,
    /// The answer names a dead token (Vault from 1.16 on). Otherwise it only denies the request.
    pub names_dead_tokens: bool,
    /// The number of refused logins that locks the role.
    pub lockout_failures: u32,
    secret_ids: BTreeSet<String>,
    /// The secret ID that was written into all files last.
    pub shared: String,
    /// Whether operators hand over secret IDs wrapped.
    pub wraps: bool,
    /// The secret ID of each wrapping token that was not used.
    wrapped: BTreeMap<String, String>,
    tokens: BTreeMap<String, Token>,
    issued: u64,
    failures: u32,
    last_failure: Option<Instant>,
    /// The number of lockouts of the role.
    pub lockouts: u32,
}

impl Auth {
    pub fn new(token_ttl: Duration, token_max_ttl: Duration) -> Self {
        Self {
            exists: true,
            num_uses: 0,
            token_ttl,
            token_max_ttl,
            names_dead_tokens: false,
            lockout_failures: LOCKOUT_FAILURES,
            secret_ids: BTreeSet::new(),
            shared: String::new(),
            wraps: false,
            wrapped: BTreeMap::new(),
            tokens: BTreeMap::new(),
            issued: 0,
            failures: 0,
            last_failure: None,
            lockouts: 0,
        }
    }

    /// Makes a new secret ID.
    pub fn issue_secret_id(&mut self) -> String {
        self.issued += 1;
        let secret_id = format!("secret-id-canary-{:04}", self.issued);
        self.secret_ids.insert(secret_id.clone());
        secret_id
    }

    /// Returns the content of a file through which an operator hands over `secret_id`.
    pub fn delivered(&mut self, secret_id: &str) -> String {
        if !self.wraps {
            return secret_id.to_owned();
        }
        self.issued += 1;
        let token = format!("s.wrapping-canary-{:04}", self.issued);
        self.wrapped.insert(token.clone(), secret_id.to_owned());
        token
    }

    pub fn look_up_wrapping(&self, token: &Value) -> Reply {
        if !self.wrapped.contains_key(token.as_str().unwrap()) {
            return refusal(400, USED);
        }
        (200, json!({"data": {"creation_path": "auth/approle/role/x/secret-id"}}))
    }

    /// Uses up a wrapping token.
    pub fn unwrap(&mut self, token: &str) -> Reply {
        match self.wrapped.remove(token) {
            Some(secret_id) => (200, json!({"data": {"secret_id": secret_id, "secret_id_ttl": 0}})),
            None => refusal(400, USED),
        }
    }

    pub fn destroy_secret_ids(&mut self) {
        self.secret_ids.clear();
    }

    /// Destroys all secret IDs that were issued before `first`.
    pub fn destroy_secret_ids_before(&mut self, first: &str) {
        self.secret_ids = self.secret_ids.split_off(first);
    }

    pub fn revoke_all(&mut self) {
        self.tokens.clear();
    }

    pub fn login(&mut self, body: &Value) -> Reply {
        let now = Instant::now();
        if !self.exists || body["role_id"] != ROLE_ID {
            return refusal(400, "invalid role or secret ID");
        }
        // The counter is reset after a time without a refusal that is as long as a lock.
        if self.last_failure.is_some_and(|at| now - at >= LOCKOUT) {
            (self.failures, self.last_failure) = (0, None);
        }
        if self.failures >= self.lockout_failures {
            self.lockouts += 1;
            return refusal(403, "permission denied");
        }
        if !self.secret_ids.contains(body["secret_id"].as_str().unwrap()) {
            self.failures += 1;
            self.last_failure = Some(now);
            return refusal(400, "invalid role or secret ID");
        }
        (self.failures, self.last_failure) = (0, None);
        self.issued += 1;
        let token = format!("s.token-canary-{:04}", self.issued);
        let ends = now + self.token_max_ttl;
        self.tokens.insert(token.clone(), Token { expires: now + self.token_ttl, ends });
        (200, self.told(&token, self.token_ttl))
    }

    /// Returns the refusal if `token` is not valid.
    pub fn check(&mut self, token: Option<&str>) -> Result<(), Reply> {
        let now = Instant::now();
        self.tokens.retain(|_, token| token.expires > now);
        if token.is_some_and(|token| self.tokens.contains_key(token)) {
            return Ok(());
        }
        Err(if self.names_dead_tokens {
            (
                403,
                json!({"errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}),
            )
        } else {
            refusal(403, "permission denied")
        })
    }

    /// Renews `token`, which must be valid.
    pub fn renew(&mut self, token: &str) -> Reply {
        if !self.exists {
            let text = "failed to renew entry: role \"x\" does not exist during renewal";
            return refusal(500, text);
        }
        let (now, ttl) = (Instant::now(), self.token_ttl);
        let held = self.tokens.get_mut(token).unwrap();
        held.expires = (now + ttl).min(held.ends);
        let ttl = held.expires - now;
        (200, self.told(token, ttl))
    }

    pub fn revoke(&mut self, token: &str) -> Reply {
        self.tokens.remove(token);
        (204, Value::Null)
    }

    fn told(&self, token: &str, ttl: Duration) -> Value {
        json!({"data": null, "auth": {"client_token": token, "lease_duration": ttl.as_secs(),
            "renewable": true, "num_uses": self.num_uses, "token_type": "service"}})
    }
}
