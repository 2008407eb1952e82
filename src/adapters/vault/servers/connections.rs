//! The connection pools of the endpoints. If a server does not serve, its pool is closed and the
//! name is resolved again, because another server may have the same name.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;
use tower::Service;

use super::transport::{BoxError, Dial, KeeperConnection};
use crate::{domain::time::Monotonic, ports::clock::Clock};

/// The largest number of idle connections, and how long they are kept: less than the 5 minutes
/// after which Vault closes them.
const IDLE_MAX: usize = 64;
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// The shortest time between two renewals of a pool because of the same servers. A server that
/// fails every request must not cost a handshake for each.
const RENEWED_EVERY: Duration = Duration::from_secs(1);

/// How long a server that did not serve is dialled last, and how many such servers are remembered.
const DIAL_LAST_FOR: Duration = Duration::from_mins(1);
const DIAL_LAST_MAX: usize = 16;

/// The HTTP client for one endpoint.
pub(super) type Http = Client<Dialler, Full<Bytes>>;

/// The connections to all endpoints.
#[derive(Debug)]
pub(super) struct Connections {
    dial: RwLock<Arc<dyn Dial>>,
    /// The longest time to establish a connection (`--vault-connection-timeout`).
    connect_timeout: Duration,
    clock: Arc<dyn Clock>,
    pools: Vec<Mutex<Pool>>,
}

/// The connections to one endpoint.
#[derive(Debug)]
struct Pool {
    http: Arc<Http>,
    /// When the pool was last renewed.
    renewed: Option<Monotonic>,
    /// Whether a renewal was requested too early. It is made before a later request.
    is_due: bool,
    /// The servers behind the name that did not serve, and when.
    dial_last: Vec<DialLast>,
}

/// A server that did not serve, and when.
type DialLast = (SocketAddr, Monotonic);

fn is_dialled_last(now: Monotonic) -> impl Fn(&DialLast) -> bool {
    move |(_, since)| now.since(*since) < DIAL_LAST_FOR
}

impl Connections {
    /// Creates empty pools for `count` endpoints.
    pub(super) fn new(
        count: usize,
        dial: Arc<dyn Dial>,
        connect_timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let mut connections =
            Self { dial: RwLock::new(dial), connect_timeout, clock, pools: Vec::new() };
        let pool = || {
            let http = connections.http(&[]);
            Mutex::new(Pool { http, renewed: None, is_due: false, dial_last: Vec::new() })
        };
        connections.pools = (0..count).map(|_| pool()).collect();
        connections
    }

    /// Returns the HTTP client of endpoint `index`. Makes a pending renewal first.
    pub(super) fn to(&self, index: usize) -> Option<Arc<Http>> {
        let now = self.clock.now();
        let mut pool = self.pool(index)?;
        if pool.is_due && !pool.is_early(now) {
            self.renew_pool(&mut pool, now);
        }
        Some(Arc::clone(&pool.http))
    }

    /// Closes the connections to endpoint `index`. Running requests finish on them. For a minute,
    /// `peer`, the server that did not serve, is dialled after all other servers behind the name. A
    /// renewal within a second of the last one is postponed, unless `peer` is a new one.
    pub(super) fn renew(&self, index: usize, peer: Option<SocketAddr>) {
        let now = self.clock.now();
        let Some(mut pool) = self.pool(index) else { return };
        pool.dial_last.retain(is_dialled_last(now));
        let is_new =
            peer.is_some_and(|peer| pool.dial_last.iter().all(|(known, _)| *known != peer));
        if pool.is_early(now) && !is_new {
            pool.is_due = true;
            return;
        }
        if let Some(peer) = peer {
            pool.dial_last.retain(|(known, _)| *known != peer);
            if pool.dial_last.len() == DIAL_LAST_MAX {
                pool.dial_last.remove(0);
            }
            pool.dial_last.push((peer, now));
        }
        self.renew_pool(&mut pool, now);
    }

    /// Makes all new connections with `dial` from now on.
    pub(super) fn set_dial(&self, dial: &Arc<dyn Dial>) {
        *self.dial.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(dial);
        for index in 0..self.pools.len() {
            if let Some(mut pool) = self.pool(index) {
                pool.http = self.http(&pool.dial_last);
            }
        }
    }

    fn renew_pool(&self, pool: &mut Pool, now: Monotonic) {
        pool.http = self.http(&pool.dial_last);
        (pool.renewed, pool.is_due) = (Some(now), false);
    }

    /// Returns an HTTP client without connections, which dials the servers in `last` last.
    fn http(&self, last: &[DialLast]) -> Arc<Http> {
        let dial = Arc::clone(&self.dial.read().unwrap_or_else(PoisonError::into_inner));
        let (most, clock) = (self.connect_timeout, Arc::clone(&self.clock));
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(Dialler { dial, most, clock, last: last.into() });
        Arc::new(client)
    }

    fn pool(&self, index: usize) -> Option<MutexGuard<'_, Pool>> {
        Some(self.pools.get(index)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pool {
    fn is_early(&self, now: Monotonic) -> bool {
        self.renewed.is_some_and(|at| now.since(at) < RENEWED_EVERY)
    }
}

/// Connects to one endpoint, within a time limit.
#[derive(Clone, Debug)]
pub(super) struct Dialler {
    dial: Arc<dyn Dial>,
    most: Duration,
    clock: Arc<dyn Clock>,
    /// The servers behind the name that did not serve.
    last: Arc<[DialLast]>,
}

impl Service<Uri> for Dialler {
    type Response = KeeperConnection;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<KeeperConnection, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let is_last = is_dialled_last(self.clock.now());
        let last = self.last.iter().filter(|server| is_last(server));
        let last: Vec<_> = last.map(|(peer, _)| *peer).collect();
        let dialled = timeout(self.most, self.dial.dial(to, &last));
        Box::pin(async {
            dialled.await.unwrap_or_else(|_elapsed| {
                Err("the connection took too long to establish (--vault-connection-timeout)".into())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::future::{BoxFuture, FutureExt as _, pending};

    use super::*;
    use crate::ports::clock::MockClock;

    /// Establishes no connection. Notes which servers are to be dialled last.
    #[derive(Debug, Default)]
    struct Nowhere(Mutex<Vec<Vec<SocketAddr>>>);

    impl Dial for Nowhere {
        fn dial(
            &self,
            _to: Uri,
            last: &[SocketAddr],
        ) -> BoxFuture<'static, Result<KeeperConnection, BoxError>> {
            self.0.lock().unwrap().push(last.to_vec());
            pending().boxed()
        }
    }

    /// Returns connections to one endpoint, and the milliseconds of their clock.
    fn connections(dial: Arc<dyn Dial>) -> (Connections, Arc<AtomicU64>) {
        let millis = Arc::new(AtomicU64::new(0));
        let mut clock = MockClock::new();
        let now = Arc::clone(&millis);
        clock
            .expect_now()
            .returning(move || Monotonic::at(Duration::from_millis(now.load(Ordering::Relaxed))));
        (Connections::new(1, dial, Duration::from_secs(1), Arc::new(clock)), millis)
    }

    #[test]
    fn postpones_an_early_renewal_to_a_later_request() {
        let (connections, clock) = connections(Arc::<Nowhere>::default());
        let at = |millis| clock.store(millis, Ordering::Relaxed);
        let pool = |millis| {
            at(millis);
            connections.to(0).unwrap()
        };
        connections.renew(0, None);
        let first = pool(100);
        at(200);
        connections.renew(0, None);
        assert!(Arc::ptr_eq(&first, &pool(900)), "one renewal a second");
        let second = pool(1_000);
        assert!(!Arc::ptr_eq(&first, &second), "the connection to the old server is gone");
        assert!(Arc::ptr_eq(&second, &pool(9_000)), "no renewal is pending");
    }

    /// Regression: the address was dialled last until the next renewal of the pool, and no longer
    /// at all after a new certificate.
    #[tokio::test]
    async fn a_server_that_did_not_serve_is_dialled_last_for_a_minute() {
        let dial = Arc::new(Nowhere::default());
        let (connections, clock) = connections(Arc::<Nowhere>::clone(&dial));
        let server = |last: u8| SocketAddr::from(([127, 0, 0, last], 8200));
        connections.renew(0, Some(server(1)));
        clock.store(2_000, Ordering::Relaxed);
        connections.renew(0, Some(server(2)));
        let dial_at = |millis| {
            clock.store(millis, Ordering::Relaxed);
            let http = connections.to(0).unwrap();
            let uri = Uri::from_static("http://vault:8200");
            drop(http.get(uri).now_or_never());
            dial.0.lock().unwrap().pop().unwrap()
        };
        for is_replaced in [false, true] {
            if is_replaced {
                let same: Arc<dyn Dial> = Arc::<Nowhere>::clone(&dial);
                connections.set_dial(&same);
            }
            assert_eq!(dial_at(59_999), [server(1), server(2)], "{is_replaced}");
            assert_eq!(dial_at(60_000), [server(2)], "{is_replaced}");
            assert_eq!(dial_at(62_000), [], "{is_replaced}");
        }
    }
}
