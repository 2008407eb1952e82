//! Whatever servers answer, with any status, headers and body: a call to the keeper ends in time
//! with a result, or with an error of one line that repeats nothing of a body.
#![no_main]

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    runtime::Builder,
    time::Instant,
};
use vault_kube_kms::{
    adapters::vault::{
        address::VaultAddress,
        client::VaultClient,
        key_path::{KeyPath, MountPath, Namespace},
        login::{
            Login, LoginSettings,
            approle::{AppRoleSettings, RoleId},
            credential_file::LoginFiles,
            method::MethodSettings,
            port::{
                CredentialDigest, Lease, LoginFailure, LoginMethod, LoginSecret, Material, Tokens,
            },
        },
        servers::{BoxError, Dial, KeeperConnection, ServerSettings},
        session::VaultSession,
        tls::{Identity, TlsSettings, Trust},
        transit::{TransitKek, TransitSettings},
    },
    domain::{
        envelope::{Annotations, AssociatedData, Ciphertext},
        error::KmsError,
        key::KekVersion,
        secret::{Plaintext, Secret},
        time::{Monotonic, UnixTime},
    },
    ports::{
        clock::Clock,
        file::TextFile,
        kek::{Kek as _, Unwrap},
        telemetry::{Event, Telemetry},
    },
};

/// Is in each body that is not chosen freely, in no header, and in no error.
const CANARY: &str = "canary-7f3a";

/// The time for one call.
const CALL: Duration = Duration::from_secs(8);

/// Headers that mean something to a client, and some that mean nothing.
const HEADERS: [&str; 10] = [
    "content-type",
    "retry-after",
    "location",
    "date",
    "x-vault-index",
    "content-length",
    "transfer-encoding",
    "content-encoding",
    "connection",
    "x",
];

/// Status, headers, form of the body, a number for it, and a text for it.
type Told<'a> = (u16, Vec<(u8, &'a str)>, u8, u32, &'a [u8]);

fuzz_target!(|input: (u8, Vec<Told<'_>>)| {
    let (shape, told) = input;
    let answers = told.iter().take(16).map(answer).collect();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(calls(shape, answers));
});

/// An answer as it is on the wire.
fn answer((status, headers, form, number, text): &Told<'_>) -> Vec<u8> {
    let quoted = Value::from(String::from_utf8_lossy(text));
    let quoted = quoted.as_str().unwrap_or_default();
    let body = match form % 10 {
        0 => text.to_vec(),
        1 => json(&json!({"errors": [format!("{quoted} {CANARY}")]})),
        2 => json(&json!({"errors": ["permission denied"], "data": {"x": CANARY}})),
        3 => json(&json!({"data": {"plaintext": quoted, "x": CANARY}})),
        4 => json(
            &json!({"data": {"ciphertext": format!("vault:v1:{quoted}"), "key_version": number}}),
        ),
        5 => {
            let mut key = json!({"type": "aes256-gcm96", "latest_version": number, "x": CANARY});
            key["keys"][quoted] = (*number).into();
            for version in number.saturating_sub(3)..=*number {
                key["keys"][version.to_string()] = 1_700_000_000.into();
            }
            json(&json!({ "data": key }))
        }
        6 => json(&json!({"data": serde_json::from_slice::<Value>(text).unwrap_or(Value::Null)})),
        7 => json(
            &json!({"auth": {"client_token": quoted, "lease_duration": number, "renewable": true}}),
        ),
        8 => json(&json!({"data": {"secret_id": quoted, "secret_id_ttl": number,
            "creation_path": "auth/approle/role/r/secret-id", "creation_time": quoted}})),
        _ => json(&json!({"sealed": false, "cluster_id": quoted})),
    };
    if *status == u16::MAX {
        return body;
    }
    let mut head = format!("HTTP/1.1 {} x\r\n", 100 + status % 500);
    for (which, value) in headers {
        let name = HEADERS[usize::from(*which) % HEADERS.len()];
        // An error names the content type and the target of a redirection.
        let value = value.replace(CANARY, "");
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    [head.as_bytes(), b"\r\n", &body].concat()
}

fn json(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

async fn calls(shape: u8, answers: VecDeque<Vec<u8>>) {
    let clock: Arc<dyn Clock> = Arc::new(Paused(Instant::now()));
    let addresses = ["http://a:8200", "http://b:8200"].map(VaultAddress::parse);
    let settings = ServerSettings {
        addresses: addresses.into_iter().take(1 + usize::from(shape & 1)).flatten().collect(),
        tls: TlsSettings {
            trust: Trust::System,
            identity: Identity::None,
            server_name: None,
            require_pq: false,
        },
        connect_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(2),
    };
    let dial = Arc::new(Script(Mutex::new(answers)));
    let client = VaultClient::over(dial, settings, Arc::clone(&clock), Arc::new(Deaf));
    let client = Arc::new(client);
    let login = match shape >> 1 & 3 {
        0 | 1 => Login { place: String::new(), method: Arc::new(Given), tokens: Arc::new(Given) },
        way => approle(&client, &clock, way == 3),
    };
    let session = Arc::new(VaultSession::new(login, Arc::clone(&clock), Arc::new(Deaf)));
    let running = Arc::clone(&session);
    let running = tokio::spawn(async move { running.run().await });
    let settings = TransitSettings {
        key: KeyPath::of_parts("transit", "k").expect("a path"),
        namespace: Namespace::default(),
        auth_namespace: Namespace::default(),
        require_enterprise: shape & 8 != 0,
    };
    let kek = TransitKek::new(client, session, settings);
    let annotations = Annotations::new(BTreeMap::new()).expect("annotations");
    let associated_data = &AssociatedData::binding("key", &annotations);
    let ciphertext = &Ciphertext::new(b"vault:v1:AAAA".to_vec()).expect("a ciphertext");
    let deadline = || clock.now().after(CALL);

    within(&*clock, kek.describe(deadline())).await;
    let plaintext = Plaintext::new(vec![7; 32]);
    let sealed = Unwrap { ciphertext, associated_data };
    if shape & 16 == 0 {
        within(&*clock, kek.wrap(KekVersion::FIRST, &plaintext, associated_data, deadline())).await;
        within(&*clock, kek.unwrap(sealed, deadline())).await;
    } else {
        let unwraps = [sealed, sealed, sealed];
        let now = clock.now();
        let results = kek.unwrap_many(&unwraps, deadline()).await;
        assert_eq!(results.len(), unwraps.len());
        in_time(&*clock, now);
        results.into_iter().for_each(judge);
    }
    running.abort();
}

/// Runs a call, and judges how long it took and what came of it.
async fn within<T>(clock: &dyn Clock, call: impl Future<Output = Result<T, KmsError>>) {
    let began = clock.now();
    let result = call.await;
    in_time(clock, began);
    judge(result);
}

fn in_time(clock: &dyn Clock, began: Monotonic) {
    let took = clock.now().since(began);
    assert!(took <= CALL + Duration::from_millis(50), "it took {took:?}");
}

fn judge<T>(result: Result<T, KmsError>) {
    let Err(error) = result else { return };
    let text = error.to_string();
    assert!(!text.contains(char::is_control) && text.len() < 1_000, "{text:?}");
    assert!(!text.contains(CANARY), "{text}");
}

fn approle(client: &Arc<VaultClient>, clock: &Arc<dyn Clock>, wrapped: bool) -> Login {
    let settings = LoginSettings {
        mount: MountPath::parse("approle").expect("a mount"),
        namespace: Namespace::default(),
        timeout: Duration::from_secs(2),
        method: MethodSettings::AppRole(AppRoleSettings {
            role_id: RoleId::Given("role".to_owned()),
            secret_id_path: Some("/secret-id".into()),
            secret_id_wrapped: wrapped,
            secret_id_cache: None,
        }),
        ignored: Vec::new(),
    };
    let files = LoginFiles {
        watched: &|_, _| Arc::new(File),
        private: &|path| unreachable!("{path:?} is not configured"),
        identity: &|agent| unreachable!("{agent:?} is not configured"),
        unwraps: true,
    };
    settings.open(Arc::clone(client), Arc::clone(clock), &files)
}

/// Servers that give these answers, one a connection; then nothing listens any more.
#[derive(Debug)]
struct Script(Mutex<VecDeque<Vec<u8>>>);

impl Dial for Script {
    fn dial(
        &self,
        _: Uri,
        _: &[SocketAddr],
    ) -> BoxFuture<'static, Result<KeeperConnection, BoxError>> {
        let answer = self.0.lock().expect("no panic").pop_front();
        Box::pin(async move {
            let answer = answer.ok_or("nothing listens")?;
            let (ours, mut theirs) = duplex(65_536);
            tokio::spawn(async move {
                let mut request = [0; 16_384];
                if theirs.read(&mut request).await.is_ok() {
                    drop(theirs.write_all(&answer).await);
                }
            });
            Ok(KeeperConnection::new(TokioIo::new(ours), None))
        })
    }
}

/// The time of a runtime that is never idle: it goes on when all tasks wait.
#[derive(Debug)]
struct Paused(Instant);

#[async_trait]
impl Clock for Paused {
    fn now(&self) -> Monotonic {
        Monotonic::at(self.0.elapsed())
    }

    fn wall(&self) -> UnixTime {
        UnixTime::from_secs(1_800_000_000)
    }

    fn jitter(&self) -> f64 {
        0.5
    }

    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}

/// Discards every event.
#[derive(Debug)]
struct Deaf;

impl Telemetry for Deaf {
    fn record(&self, _: Event<'_>) {}
}

/// A secret ID that never changes.
#[derive(Debug)]
struct File;

#[async_trait]
impl TextFile for File {
    fn place(&self) -> String {
        "/etc/secret-id".to_owned()
    }

    async fn read(&self) -> Result<Plaintext, String> {
        Ok(Plaintext::new(b"secret-id".to_vec()))
    }

    async fn changed(&self) {
        std::future::pending().await
    }
}

/// Tokens without a request.
#[derive(Debug)]
struct Given;

#[async_trait]
impl LoginMethod for Given {
    async fn materials(&self) -> Result<Vec<Material>, KmsError> {
        let (digest, role) = (CredentialDigest::NONE, Secret::new("role".to_owned()));
        Ok(vec![Material { digest, role, secret: LoginSecret::NotNeeded }])
    }

    async fn login(&self, _: &Material) -> Result<Lease, LoginFailure> {
        Ok(Lease {
            token: Secret::new("token".to_owned()),
            ttl: None,
            renewable: false,
            own: true,
            ends_with_credential: false,
        })
    }

    async fn changed(&self) {
        std::future::pending().await
    }
}

#[async_trait]
impl Tokens for Given {
    fn keeper(&self) -> String {
        "the keeper".to_owned()
    }

    async fn renew(&self, token: &Secret) -> Result<Lease, KmsError> {
        Ok(Lease {
            token: token.clone(),
            ttl: None,
            renewable: false,
            own: true,
            ends_with_credential: false,
        })
    }

    async fn revoke(&self, _: &Secret) -> Result<(), KmsError> {
        Ok(())
    }
}
