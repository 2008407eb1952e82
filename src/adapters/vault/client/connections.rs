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
use crate::domain::time::Monotonic;

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
    dial_last: Vec<(SocketAddr, Monotonic)>,
}

impl Connections {
    /// Creates empty pools for `count` endpoints.
    pub(super) fn new(count: usize, dial: Arc<dyn Dial>, connect_timeout: Duration) -> Self {
        let pool = || {
            let http = http(Arc::clone(&dial), connect_timeout, Vec::new());
            Mutex::new(Pool { http, renewed: None, is_due: false, dial_last: Vec::new() })
        };
        let pools = (0..count).map(|_| pool()).collect();
        Self { dial: RwLock::new(dial), connect_timeout, pools }
    }

    /// Returns the HTTP client of endpoint `index`, for a request at `now`. Makes a pending renewal
    /// first.
    pub(super) fn to(&self, index: usize, now: Monotonic) -> Option<Arc<Http>> {
        let mut pool = self.pool(index)?;
        if pool.is_due && !pool.is_early(now) {
            pool.renew(self.dial(), self.connect_timeout, now);
        }
        Some(Arc::clone(&pool.http))
    }

    /// Closes the connections to endpoint `index`. Running requests finish on them. For a minute,
    /// `peer`, the server that did not serve, is dialled after all other servers behind the name. A
    /// renewal within a second of the last one is postponed, unless `peer` is a new one.
    pub(super) fn renew(&self, index: usize, peer: Option<SocketAddr>, now: Monotonic) {
        let dial = self.dial();
        let Some(mut pool) = self.pool(index) else { return };
        pool.dial_last.retain(|(_, since)| now.since(*since) < DIAL_LAST_FOR);
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
        pool.renew(dial, self.connect_timeout, now);
    }

    /// Makes all new connections with `dial` from now on.
    pub(super) fn set_dial(&self, dial: &Arc<dyn Dial>) {
        *self.dial.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(dial);
        for index in 0..self.pools.len() {
            if let Some(mut pool) = self.pool(index) {
                pool.http = http(Arc::clone(dial), self.connect_timeout, Vec::new());
            }
        }
    }

    fn dial(&self) -> Arc<dyn Dial> {
        Arc::clone(&self.dial.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn pool(&self, index: usize) -> Option<MutexGuard<'_, Pool>> {
        Some(self.pools.get(index)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pool {
    fn is_early(&self, now: Monotonic) -> bool {
        self.renewed.is_some_and(|at| now.since(at) < RENEWED_EVERY)
    }

    fn renew(&mut self, dial: Arc<dyn Dial>, connect_timeout: Duration, now: Monotonic) {
        let last = self.dial_last.iter().map(|(peer, _)| *peer).collect();
        self.http = http(dial, connect_timeout, last);
        (self.renewed, self.is_due) = (Some(now), false);
    }
}

fn http(dial: Arc<dyn Dial>, most: Duration, last: Vec<SocketAddr>) -> Arc<Http> {
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(IDLE_MAX)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_timer(TokioTimer::new())
        .build(Dialler { dial, most, last: last.into() });
    Arc::new(client)
}

/// Connects to one endpoint, within a time limit.
#[derive(Clone, Debug)]
pub(super) struct Dialler {
    dial: Arc<dyn Dial>,
    most: Duration,
    last: Arc<[SocketAddr]>,
}

impl Service<Uri> for Dialler {
    type Response = KeeperConnection;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<KeeperConnection, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let dialled = timeout(self.most, self.dial.dial(to, &self.last));
        Box::pin(async {
            dialled.await.unwrap_or_else(|_elapsed| {
                Err("the connection took too long to establish (--vault-connection-timeout)".into())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::{BoxFuture, FutureExt as _, pending};

    use super::*;

    #[derive(Debug)]
    struct Nowhere;

    impl Dial for Nowhere {
        fn dial(
            &self,
            _to: Uri,
            _last: &[SocketAddr],
        ) -> BoxFuture<'static, Result<KeeperConnection, BoxError>> {
            pending().boxed()
        }
    }

    #[test]
    fn postpones_an_early_renewal_to_a_later_request() {
        let connections = Connections::new(1, Arc::new(Nowhere), Duration::from_secs(1));
        let at = |millis| Monotonic::at(Duration::from_millis(millis));
        let pool = |millis| connections.to(0, at(millis)).unwrap();
        connections.renew(0, None, at(0));
        let first = pool(100);
        connections.renew(0, None, at(200));
        assert!(Arc::ptr_eq(&first, &pool(900)), "one renewal a second");
        let second = pool(1_000);
        assert!(!Arc::ptr_eq(&first, &second), "the connection to the old server is gone");
        assert!(Arc::ptr_eq(&second, &pool(9_000)), "no renewal is pending");
    }
}
