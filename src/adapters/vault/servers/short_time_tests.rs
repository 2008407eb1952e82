//! Tests of requests that get only the rest of a caller's time.

use std::sync::Weak;

use futures_util::future::{BoxFuture, FutureExt as _};
use http::{Method, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;

use super::*;
use crate::{
    adapters::vault::{
        client::{CallPolicy, Repeat, VaultClient},
        key_path::Namespace,
        refusal::Asked,
        wire::Nothing,
    },
    domain::time::Monotonic,
    ports::{
        clock::MockClock,
        telemetry::{KeeperOperation, MockTelemetry},
    },
};

/// A server that accepts connections, or none, and never answers.
#[derive(Debug, Default)]
struct Silent {
    accepts: bool,
    /// The ends of the server.
    open: Mutex<Vec<DuplexStream>>,
}

impl Dial for Silent {
    fn dial(
        &self,
        _to: Uri,
        _last: &[SocketAddr],
    ) -> BoxFuture<'static, Result<KeeperConnection, BoxError>> {
        if !self.accepts {
            return std::future::pending().boxed();
        }
        let (ours, theirs) = tokio::io::duplex(4_096);
        self.open.lock().unwrap().push(theirs);
        std::future::ready(Ok(KeeperConnection::new(TokioIo::new(ours), None))).boxed()
    }
}

fn client(accepts: bool, request_timeout: Duration) -> VaultClient {
    let mut clock = MockClock::new();
    clock.expect_now().returning(|| Monotonic::at(Duration::ZERO));
    clock.expect_jitter().returning(|| 0.5);
    clock.expect_sleep().returning(|_| ());
    let mut telemetry = MockTelemetry::new();
    telemetry.expect_record().returning(|_| ());
    let settings = ServerSettings {
        addresses: vec![VaultAddress::parse("http://vault:8200").unwrap()],
        tls: TlsSettings {
            trust: Trust::System,
            identity: Identity::None,
            server_name: None,
            require_pq: false,
        },
        connect_timeout: Duration::from_secs(30),
        request_timeout,
    };
    let dial = Arc::new(Silent { accepts, ..Silent::default() });
    VaultClient::over(dial, settings, Arc::new(clock), Arc::new(telemetry))
}

/// Sends a request with `left`, and returns its error and whether the connection pool is the same
/// as before.
async fn sent(client: &VaultClient, left: Duration) -> (KmsError, bool) {
    let pool = || Arc::downgrade(&client.servers().connections.to(0).unwrap());
    let before = pool();
    let request = Request {
        method: Method::GET,
        path: "transit/keys/k",
        namespace: Namespace::ROOT,
        token: None,
        body: None,
    };
    let policy = CallPolicy {
        repeat: Repeat::Never,
        ..CallPolicy::new(KeeperOperation::Read, Monotonic::at(left))
    };
    let failure = client.send::<Nothing>(&request, policy).await.unwrap_err();
    (failure.into_error(Asked::Describe("transit/keys/k")), Weak::ptr_eq(&before, &pool()))
}

const FULL: Duration = Duration::from_secs(2);

/// Regression: a call that had waited in a queue closed all connections to a healthy server, and
/// its error named the address as the cause.
#[tokio::test(start_paused = true)]
async fn a_try_with_little_time_left_says_nothing_about_the_server() {
    for accepts in [true, false] {
        let client = client(accepts, FULL);
        for left in [0, 5, 15, 200] {
            let (error, is_same) = sent(&client, Duration::from_millis(left)).await;
            assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
            assert!(!error.remedy().contains("--vault-address"), "{error}");
            assert!(is_same, "{left} ms");
        }
        assert_eq!(client.endpoints()[0].last_error, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_try_with_enough_time_counts_against_the_server() {
    let least = Duration::from_millis(100);
    for (left, request_timeout) in [(FULL, FULL), (FULL, least), (least * 3, FULL)] {
        let client = client(true, request_timeout);
        let (error, is_same) = sent(&client, left).await;
        assert_eq!(error.code(), Code::KeeperTimeout, "{error}");
        assert!(!is_same, "the name is resolved again");
        assert_eq!(client.endpoints()[0].last_error, Some(error));
    }
}

/// A login that was given up must not be sent when a slow connection is ready at last.
#[tokio::test(start_paused = true)]
async fn waits_longer_for_an_answer_and_not_for_a_connection() {
    for accepts in [true, false] {
        let client = client(accepts, FULL);
        let request = Request {
            method: Method::POST,
            path: "auth/approle/login",
            namespace: Namespace::ROOT,
            token: None,
            body: None,
        };
        let policy = CallPolicy {
            repeat: Repeat::Never,
            waits_longer: Duration::from_mins(1),
            ..CallPolicy::new(KeeperOperation::Login, Monotonic::at(Duration::from_secs(1)))
        };
        let began = tokio::time::Instant::now();
        let failure = client.send::<Nothing>(&request, policy).await.unwrap_err();
        let took = began.elapsed();
        let error = failure.into_error(Asked::Renew);
        let (named, waited) = if accepts { ("no answer", true) } else { ("no connection", false) };
        assert!(error.cause().contains(named), "{error}");
        assert_eq!(took > Duration::from_mins(1), waited, "{took:?}: {error}");
    }
}
