//! Tests which processes may connect, how long they may stay, and what happens when a process of
//! another uid listens first.
#![allow(missing_docs, clippy::pedantic, clippy::restriction, reason = "tests")]

use std::{
    collections::BTreeSet,
    env,
    fs::{self, Permissions},
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use vault_kube_kms::{
    adapters::{
        grpc::{
            address::SocketAddress,
            client,
            incoming::PeerPolicy,
            server::{ConnectionAge, KmsServer},
            socket::BoundSocket,
            wire::{EncryptRequest, StatusRequest},
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
const ADDRESS: &str = "VAULT_KUBE_KMS_TEST_ADDRESS";

/// The preface of HTTP/2 with empty SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// How long an Encrypt takes.
const SLOW: Duration = Duration::from_millis(400);

/// The type of the frame GOAWAY.
const GOAWAY: u8 = 7;

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
        tokio::time::sleep(SLOW).await;
        refusal()
    }
    async fn decrypt(&self, _: Sealed, _: Monotonic) -> Result<Plaintext, KmsError> {
        refusal()
    }
}

/// Counts the connections that were refused.
#[derive(Debug, Default)]
struct Denials(AtomicUsize);

impl Telemetry for Denials {
    fn record(&self, event: Event<'_>) {
        if matches!(event, Event::PeerDenied) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Serves `address` and admits `uids` beside root and us. Returns the counter of refused
/// connections too.
fn serve(address: &SocketAddress, uids: &[u32]) -> (CancellationToken, Arc<Denials>) {
    let (listeners, _guard) = BoundSocket::bind(address).unwrap().guarded();
    let denials = Arc::new(Denials::default());
    let serving = KmsServer {
        telemetry: Arc::clone(&denials) as _,
        peers: PeerPolicy::Uids(uids.iter().copied().collect::<BTreeSet<_>>()),
        ..server()
    };
    let stop = CancellationToken::new();
    tokio::spawn(serving.run(listeners, stop.clone()));
    (stop, denials)
}

fn server() -> KmsServer {
    KmsServer {
        kms: Arc::new(Refusing),
        clock: Arc::new(SystemClock::new()),
        telemetry: Arc::new(Denials::default()),
        audit: None,
        peers: PeerPolicy::FileMode,
        age: ConnectionAge::USUAL,
        drain: Duration::from_millis(100),
    }
}

fn unused_name(test: &str) -> SocketAddress {
    SocketAddress::Abstract(format!("vkk-peers-{test}-{}", std::process::id()))
}

/// A directory that another uid may use.
fn shared_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
    directory
}

/// Runs the ignored test `part` of this program as the user `uid`, with `address`.
fn part(part: &str, address: &SocketAddress, uid: u32) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", part, "--ignored", "--nocapture"]);
    command.uid(uid).env(ADDRESS, address.to_string());
    command
}

/// Returns the address for the part of a test that runs as another process.
fn told_address() -> Option<SocketAddress> {
    env::var(ADDRESS).ok().map(|address| SocketAddress::parse(&address).unwrap())
}

/// Returns whether a process of `uid` is served on `address`.
fn is_served(address: &SocketAddress, uid: u32) -> bool {
    part("dials_when_told", address, uid).output().unwrap().status.success()
}

/// The part of the other tests that runs under another uid. In HTTP/2 the server sends first
/// (SETTINGS), but only to an admitted peer.
#[test]
#[ignore = "run by the tests below, as another uid"]
fn dials_when_told() {
    let Some(address) = told_address() else { return };
    let mut stream = match address {
        SocketAddress::File(path) => UnixStream::connect(path).unwrap(),
        SocketAddress::Abstract(name) => {
            UnixStream::connect_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap()
        }
    };
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(PREFACE).unwrap();
    assert!(stream.read(&mut [0; 9]).unwrap() > 0, "the connection was closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejects_another_uid_and_serves_our_own() {
    let address = unused_name("own");
    let (stop, denials) = serve(&address, &[]);
    let mut ours = client::connect(&address).await.unwrap();
    assert!(ours.status(StatusRequest {}).await.unwrap_err().message().starts_with("starting"));
    if !may_change_uid() {
        return;
    }
    assert!(!is_served(&address, NOBODY), "nobody was let in");
    assert_eq!(denials.0.load(Ordering::SeqCst), 1, "a refused connection is counted");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_a_listed_uid() {
    if !may_change_uid() {
        return;
    }
    let address = unused_name("listed");
    let (stop, denials) = serve(&address, &[NOBODY]);
    assert!(is_served(&address, NOBODY), "the listed uid was refused");
    assert_eq!(denials.0.load(Ordering::SeqCst), 0);
    stop.cancel();
}

/// A list of uids applies to a file too, also if its mode admits everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_uids_holds_for_a_socket_file() {
    if !may_change_uid() {
        return;
    }
    for (listed, served) in [(&[][..], false), (&[NOBODY][..], true)] {
        let directory = shared_directory();
        let path = directory.path().join("k.sock");
        let address = SocketAddress::File(path.clone());
        let (stop, denials) = serve(&address, listed);
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        assert_eq!(is_served(&address, NOBODY), served, "{listed:?}");
        assert_eq!(denials.0.load(Ordering::SeqCst), usize::from(!served), "{listed:?}");
        stop.cancel();
    }
}

/// The part of the next test that listens as another uid, until its standard input ends.
#[test]
#[ignore = "run by another test, as another uid"]
fn listens_when_told() {
    let Some(SocketAddress::File(path)) = told_address() else { return };
    let _listener = UnixListener::bind(path).unwrap();
    println!("LISTENING");
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_socket_of_another_uid_in_the_way_is_an_alert_that_names_it() {
    if !may_change_uid() {
        return;
    }
    let directory = shared_directory();
    let address = SocketAddress::File(directory.path().join("k.sock"));
    let mut command = part("listens_when_told", &address, NOBODY);
    let mut other = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(other.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("LISTENING")));
    let error = BoundSocket::bind(&address).unwrap_err().to_string();
    assert!(error.starts_with("ALERT: ") && error.contains("uid 65534"), "{error}");
    // Its standard input ends, and with it the process.
    drop(other.stdin.take());
    other.wait().unwrap();
    BoundSocket::bind(&address).unwrap();
}

/// The part of the next test that tries to bind as another uid.
#[test]
#[ignore = "run by another test, as another uid"]
fn finds_the_address_in_use_when_told() {
    let Some(address) = told_address() else { return };
    let error = BoundSocket::bind(&address).unwrap_err().to_string();
    assert!(error.starts_with("ALERT: ") && error.contains("uid 0"), "{error}");
}

/// The mode of the file forbids to connect, so only the file's owner is known.
#[test]
fn a_closed_socket_of_another_uid_is_an_alert_too() {
    if !may_change_uid() {
        return;
    }
    let directory = shared_directory();
    let path = directory.path().join("k.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let tried = part("finds_the_address_in_use_when_told", &SocketAddress::File(path), NOBODY);
    let output = { tried }.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// A peer that does not leave when it is asked to is closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_asked_to_leave_at_its_age_and_closed_after_the_grace_time() {
    let address = unused_name("age");
    let (listeners, _guard) = BoundSocket::bind(&address).unwrap().guarded();
    let moment = Duration::from_millis(200);
    let serving = KmsServer { age: ConnectionAge { most: moment, grace: moment }, ..server() };
    tokio::spawn(serving.run(listeners, CancellationToken::new()));
    let SocketAddress::Abstract(name) = &address else { unreachable!() };
    let mut peer =
        UnixStream::connect_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    peer.write_all(PREFACE).unwrap();
    let mut answer = Vec::new();
    if let Err(error) = peer.read_to_end(&mut answer) {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    assert!(frames(&answer).contains(&GOAWAY), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_runs_at_the_age_of_its_connection_gets_its_answer() {
    let address = unused_name("call");
    let (listeners, _guard) = BoundSocket::bind(&address).unwrap().guarded();
    let age = ConnectionAge { most: SLOW / 4, grace: 100 * SLOW };
    let serving = KmsServer { age, ..server() };
    tokio::spawn(serving.run(listeners, CancellationToken::new()));
    let mut client = client::connect(&address).await.unwrap();
    let call = EncryptRequest { plaintext: vec![7; 32], uid: "slow".to_owned() };
    let refused = client.encrypt(call).await.unwrap_err();
    assert!(refused.message().starts_with("starting"), "{refused}");
}

/// Returns the types of the whole frames in `octets` (RFC 9113, section 4.1).
fn frames(mut octets: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = octets {
        types.push(*kind);
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        octets = rest.get(length..).unwrap_or_default();
    }
    types
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
