//! A stand-in for Vault: real TLS, the Transit and AppRole calls that a provider makes, and
//! faults on demand. It answers as `vault-http.md`'s servers were observed to, and where no
//! server could be observed (Vault before 1.13, Enterprise), as documented.

mod engine;
mod server;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

pub use engine::Engine;
use tokio::task::JoinHandle;

use super::admin::Provisioned;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The answer comes this much later.
    Delay(Duration),
    /// No answer ever comes.
    Hang,
    /// The connection is reset after the request was read.
    Reset,
    /// The answer's body ends half way.
    HalfBody,
    /// A proxy's page instead of an answer.
    Html502,
    /// A rate-limit quota.
    Quota429,
    /// Sealed.
    Sealed503,
    /// A standby that redirects.
    Standby307,
    /// JSON of another kind than was asked for.
    Nonsense200,
}

/// How the stand-in differs from a current OpenBao.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Vault before 1.13: associated data is ignored without a word.
    pub ignores_associated_data: bool,
    /// Vault Enterprise: there is a licence.
    pub enterprise: bool,
}

/// A running stand-in, with one key and one role. It ends with this value.
pub struct StandIn {
    pub address: String,
    pub ca: Vec<u8>,
    pub provisioned: Provisioned,
    pub shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

/// What tests and the server both see.
pub struct Shared {
    pub engine: Mutex<Engine>,
    fault: Mutex<Option<Fault>>,
    by_path: Mutex<BTreeMap<String, u64>>,
}

impl StandIn {
    pub const KEY: &'static str = "k1";

    pub async fn start() -> Self {
        Self::with(Manner::default()).await
    }

    pub async fn with(manner: Manner) -> Self {
        let shared = Arc::new(Shared {
            engine: Mutex::new(Engine::new(manner)),
            fault: Mutex::new(None),
            by_path: Mutex::default(),
        });
        let (address, ca, serving) = server::start(shared.clone()).await;
        let provisioned = Provisioned {
            key: Self::KEY.to_owned(),
            role_id: engine::ROLE_ID.to_owned(),
            secret_id: engine::SECRET_ID.to_owned(),
        };
        Self { address, ca, provisioned, shared, serving }
    }

    /// From now on every request meets `fault`; `None` ends that.
    pub fn set_fault(&self, fault: Option<Fault>) {
        *self.shared.fault.lock().unwrap() = fault;
    }

    /// Ends every token that was given out.
    pub fn expire_tokens(&self) {
        self.shared.engine.lock().unwrap().expire_tokens();
    }

    pub fn rotate(&self) {
        self.shared.engine.lock().unwrap().rotate();
    }

    /// How many requests came for `path`, below `/v1/`.
    pub fn requests_for(&self, path: &str) -> u64 {
        self.shared.by_path.lock().unwrap().get(path).copied().unwrap_or(0)
    }
}

impl Shared {
    fn fault_for(&self, path: &str) -> Option<Fault> {
        *self.by_path.lock().unwrap().entry(path.to_owned()).or_default() += 1;
        *self.fault.lock().unwrap()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
