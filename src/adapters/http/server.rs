//! A small server for small answers: bounded in connections and in time.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::endpoints::Endpoints;

/// Connections served at once; a prober holds one for milliseconds, a scraper for longer.
const CONNECTIONS_MAX: usize = 32;

/// How long a request's head may take, and how long a connection may live.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A port that was bound and is not served yet.
#[derive(Debug)]
pub struct BoundPort {
    listener: StdListener,
    /// Where, with the port the system chose if 0 was asked for.
    pub address: SocketAddr,
}

impl BoundPort {
    /// Binds `address`.
    ///
    /// # Errors
    /// What the system said; the port is busy, most often.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Serves `endpoints`, for ever.
    ///
    /// # Errors
    /// When the runtime cannot take over the listener.
    pub async fn serve(self, endpoints: Endpoints) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return Ok(()) };
            let Ok((stream, _)) = listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let endpoints = endpoints.clone();
            drop(tokio::spawn(async move {
                let answer = service_fn(|request| {
                    let response = endpoints.answer(&request);
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    // A prober that holds on to its connection would keep others out.
                    .keep_alive(false)
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), answer);
                // A peer that goes away or talks nonsense ends its own connection.
                drop(timeout(CONNECTION_TIMEOUT, connection).await);
                drop(permit);
            }));
        }
    }
}
