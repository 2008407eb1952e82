//! A stand-in for Vault: real TLS, the Transit and AppRole calls that a provider makes, and
//! faults on demand. It answers as real servers were observed to. Where no server could be
//! observed (Vault before 1.13, Enterprise), it answers as documented.

mod engine;
mod server;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

pub use engine::Engine;
use server::Authority;
use tokio::{sync::Notify, task::JoinHandle};

use super::admin::Provisioned;

/// A fault of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The answer comes this much later.
    Delay(Duration),
    /// No answer ever comes.
    Hang,
    /// The connection is reset after the request was read.
    Reset,
    /// The connection is reset after the request was carried out.
    ResetAfter,
    /// The answer's body ends half way.
    HalfBody,
    /// This status with this body, after [`StandIn::release`].
    Held(u16, String),
    /// This status with this body.
    Says(u16, String),
    /// A standby that redirects to this address.
    Redirect(String),
}

impl Fault {
    /// A refusal with one text.
    pub fn error(status: u16, text: &str) -> Self {
        Self::Says(status, serde_json::json!({ "errors": [text] }).to_string())
    }

    /// A proxy's page instead of an answer.
    pub fn html_502() -> Self {
        Self::Says(502, "<html><h1>502 Bad Gateway</h1></html>".to_owned())
    }

    /// A rate-limit quota.
    pub fn quota() -> Self {
        Self::error(429, "request path \"x\": rate limit quota exceeded")
    }

    /// Sealed.
    pub fn sealed() -> Self {
        Self::error(503, "Vault is sealed")
    }

    /// A standby that redirects to an unknown address.
    pub fn redirect_elsewhere() -> Self {
        Self::Redirect("https://127.0.0.1:1".to_owned())
    }

    /// JSON of another form than the request expects.
    pub fn nonsense() -> Self {
        Self::Says(200, r#"{"data":{"plaintext":7,"keys":[]}}"#.to_owned())
    }
}

/// How the stand-in differs from a current OpenBao.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Vault before 1.13: associated data is ignored without an error.
    pub ignores_associated_data: bool,
    /// Vault Enterprise: there is a licence.
    pub enterprise: bool,
}

/// A running stand-in, with one key and one role. It ends when this value is dropped.
pub struct StandIn {
    pub address: String,
    pub ca: Vec<u8>,
    pub provisioned: Provisioned,
    pub shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

/// The state that tests and the server share.
pub struct Shared {
    pub engine: Arc<Mutex<Engine>>,
    script: Mutex<Script>,
    by_path: Mutex<BTreeMap<String, u64>>,
    /// Whether this node reports that it is active.
    leads: AtomicBool,
    /// The newest version that this node will ever know.
    knows: AtomicU32,
    /// Wakes the requests that are held.
    released: Notify,
    /// Has a permit when a request that was held is answered.
    answered: Notify,
    authority: Authority,
}

/// The faults, and the requests that get them.
#[derive(Default)]
struct Script {
    /// Every request gets this fault while it is set.
    always: Option<Fault>,
    /// The faults of the next requests for paths with this prefix, one by one.
    next: Vec<(String, Fault)>,
}

impl StandIn {
    pub const KEY: &'static str = "k1";

    pub async fn start() -> Self {
        Self::with(Manner::default()).await
    }

    pub async fn with(manner: Manner) -> Self {
        let first = Self::of(Arc::new(Mutex::new(Engine::new(manner))), Authority::new()).await;
        first.lead(true);
        first
    }

    /// Starts a server that refuses a hybrid key exchange.
    pub async fn classical() -> Self {
        let engine = Engine::new(Manner::default());
        Self::of(Arc::new(Mutex::new(engine)), Authority::classical()).await
    }

    /// Starts another node of the same cluster, under the same authority.
    pub async fn node(&self) -> Self {
        Self::of(self.shared.engine.clone(), self.shared.authority.clone()).await
    }

    /// Starts a node of another cluster, under the same authority.
    pub async fn foreign_node(&self) -> Self {
        let engine = Engine::new(Manner::default());
        Self::of(Arc::new(Mutex::new(engine)), self.shared.authority.clone()).await
    }

    async fn of(engine: Arc<Mutex<Engine>>, authority: Authority) -> Self {
        let ca = authority.pem.clone().into_bytes();
        let script = Mutex::default();
        let shared = Shared {
            engine,
            script,
            by_path: Mutex::default(),
            leads: AtomicBool::new(false),
            knows: AtomicU32::new(u32::MAX),
            released: Notify::new(),
            answered: Notify::new(),
            authority,
        };
        let shared = Arc::new(shared);
        let (address, serving) = server::start(shared.clone()).await;
        let provisioned = Provisioned {
            key: Self::KEY.to_owned(),
            role_id: engine::ROLE_ID.to_owned(),
            secret_id: engine::SECRET_ID.to_owned(),
        };
        Self { address, ca, provisioned, shared, serving }
    }

    /// Gives every request `fault` from now on. `None` ends that.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.shared.script.lock().unwrap().always = fault;
    }

    /// Gives the next `count` requests for a path that begins with `path` the fault `fault`.
    pub fn fail_next(&self, count: usize, path: &str, fault: &Fault) {
        let next = &mut self.shared.script.lock().unwrap().next;
        next.extend((0..count).map(|_| (path.to_owned(), fault.clone())));
    }

    /// Answers the request that is held. Its client must still wait.
    pub async fn release(&self) {
        self.shared.released.notify_waiters();
        let answered = self.shared.answered.notified();
        tokio::time::timeout(Duration::from_secs(10), answered).await.expect("it is held");
    }

    /// Revokes every token.
    pub fn expire_tokens(&self) {
        self.shared.engine.lock().unwrap().expire_tokens();
    }

    /// Sets whether this node reports that it is active. The first node does so at the start.
    pub fn lead(&self, leads: bool) {
        self.shared.leads.store(leads, Ordering::Relaxed);
    }

    /// From now on this node does not learn of new versions.
    pub fn learn_no_more(&self) {
        let newest = self.shared.engine.lock().unwrap().newest();
        self.shared.knows.store(newest, Ordering::Relaxed);
    }

    pub fn rotate(&self) {
        self.shared.engine.lock().unwrap().rotate();
    }

    /// Returns the number of requests for `path`, below `/v1/`.
    pub fn requests_for(&self, path: &str) -> u64 {
        self.shared.by_path.lock().unwrap().get(path).copied().unwrap_or(0)
    }
}

impl Shared {
    fn fault_for(&self, path: &str) -> Option<Fault> {
        *self.by_path.lock().unwrap().entry(path.to_owned()).or_default() += 1;
        let mut script = self.script.lock().unwrap();
        if let Some(at) = script.next.iter().position(|(start, _)| path.starts_with(start)) {
            return Some(script.next.remove(at).1);
        }
        script.always.clone()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
