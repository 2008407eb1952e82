//! Tests who may connect to an abstract socket. Any process of the network namespace can connect
//! to it, so the peer's uid decides.
#![allow(missing_docs, clippy::pedantic, clippy::restriction, reason = "tests")]

use std::{
    collections::BTreeSet,
    env,
    io::{self, Read, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            net::{SocketAddr, UnixStream},
            process::CommandExt,
        },
    },
    process::Command,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use vault_kube_kms::{
    adapters::{
        grpc::{
            address::SocketAddress, client, incoming::PeerPolicy, server::KmsServer,
            socket::BoundSocket, wire::StatusRequest,
        },
        system::clock::SystemClock,
    },
    domain::{
        error::{Code, KmsError},
        secret::Plaintext,
        time::Monotonic,
    },
    ports::{
        kms::{Encrypted, KeyManagement, Sealed, StatusAnswer},
        telemetry::{Event, Telemetry},
    },
};

const NOBODY: u32 = 65_534;
const NAME: &str = "VAULT_KUBE_KMS_TEST_DIAL";

#[derive(Debug)]
struct Refusing;

fn refusal<T>() -> Result<T, KmsError> {
    Err(KmsError::new(Code::Starting, "a test", "none"))
}

#[async_trait]
impl KeyManagement for Refusing {
    fn status(&self) -> Result<StatusAnswer, KmsError> {
        refusal()
    }
    async fn encrypt(&self, _: Plaintext, _: Monotonic) -> Result<Encrypted, KmsError> {
        refusal()
    }
    async fn decrypt(&self, _: Sealed, _: Monotonic) -> Result<Plaintext, KmsError> {
        refusal()
    }
}

impl Telemetry for Refusing {
    fn record(&self, _: Event<'_>) {}
}

/// Serves an abstract socket that admits `uids` beside root and us.
fn serve(name: &str, uids: &[u32]) -> CancellationToken {
    let address = SocketAddress::Abstract(name.to_owned());
    let (listeners, _guard) = BoundSocket::bind(&address).unwrap().guarded();
    let serving = KmsServer {
        kms: Arc::new(Refusing),
        clock: Arc::new(SystemClock::new()),
        telemetry: Arc::new(Refusing),
        audit: None,
        peers: PeerPolicy::Uids(uids.iter().copied().collect::<BTreeSet<_>>()),
        drain: Duration::from_millis(100),
    };
    let stop = CancellationToken::new();
    tokio::spawn(serving.run(listeners, stop.clone()));
    stop
}

/// Returns whether a process of `uid` is served on the abstract socket `name`.
fn is_served(name: &str, uid: u32) -> bool {
    let test = env::current_exe().unwrap();
    let dial = Command::new(test)
        .args(["--exact", "dials_when_told", "--ignored"])
        .uid(uid)
        .env(NAME, name)
        .output();
    dial.unwrap().status.success()
}

/// The part of the other tests that runs under another uid. In HTTP/2 the server sends first
/// (SETTINGS), but only to an admitted peer.
#[test]
#[ignore = "run by the tests below, as another uid"]
fn dials_when_told() {
    let Ok(name) = env::var(NAME) else { return };
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let mut stream = UnixStream::connect_addr(&address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    assert!(stream.read(&mut [0; 9]).unwrap() > 0, "the connection was closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejects_another_uid_and_serves_our_own() {
    let name = format!("vkk-peers-{}", std::process::id());
    let stop = serve(&name, &[]);
    let mut ours = client::connect(&SocketAddress::Abstract(name.clone())).await.unwrap();
    assert!(ours.status(StatusRequest {}).await.unwrap_err().message().starts_with("starting"));
    if !may_change_uid() {
        return;
    }
    assert!(!is_served(&name, NOBODY), "nobody was let in");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_a_listed_uid() {
    if !may_change_uid() {
        return;
    }
    let name = format!("vkk-peers-named-{}", std::process::id());
    let stop = serve(&name, &[NOBODY]);
    assert!(is_served(&name, NOBODY), "the named uid was refused");
    stop.cancel();
}

/// Another uid needs root, and a test binary that the other uid may run.
fn may_change_uid() -> bool {
    let listed = Command::new(env::current_exe().unwrap()).arg("--list").uid(NOBODY).output();
    let possible = listed.is_ok_and(|output| output.status.success());
    if !possible {
        let text = "SKIPPED: ANOTHER UID CANNOT BE TAKEN HERE; run as root";
        assert!(env::var("CI").as_deref() != Ok("true"), "{text}");
        drop(writeln!(io::stderr(), "{text}"));
    }
    possible
}
