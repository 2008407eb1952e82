//! Serves short HTTP answers, with bounds on connections and time.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdListener},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use super::routes::Routes;
use crate::adapters::connections::{
    slot::{Slot, Slots},
    table::Limits,
};

/// How many connections may be open at once. "Silent" connections have not sent their request yet.
/// The connection of a probe is in the other group for milliseconds, the connection of a scraper
/// for longer.
const LIMITS: Limits = Limits { silent: 128, speaking: 32, requests: 32, held: 32 };

/// How long the headers of a request may take, and how long a connection may live.
const HEAD_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of the head of a request. It is hyper's smallest value.
const HEAD_MAX: usize = 8_192;

/// Most connections that may wait to be accepted; the limit of the system applies too. When the
/// backlog is full, a probe waits for a second before it tries again.
const BACKLOG: i32 = 4_096;

/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound port that is not served yet.
#[derive(Debug)]
pub struct BoundPort {
    listener: StdListener,
    /// The address, with the port that the system chose when port 0 was asked for.
    pub address: SocketAddr,
}

impl BoundPort {
    /// Binds `address`.
    ///
    /// # Errors
    /// Returns the error of the system. Most often the port is in use.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = StdListener::from(socket);
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Serves `routes` for ever. Accepts every new connection. When there are too many, closes one
    /// of the peer address with the most connections: first the oldest that has not sent its
    /// request.
    ///
    /// # Errors
    /// Returns an error when the runtime cannot take over the listener.
    pub async fn serve(self, routes: Routes) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let slots = Slots::new(LIMITS);
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (slot, _another_ended) = slots.take(peer.ip());
            drop(tokio::spawn(answer(stream, slot, routes.clone())));
        }
    }
}

/// Answers one request, unless the connection is closed first.
async fn answer(stream: TcpStream, slot: Slot<IpAddr>, routes: Routes) {
    let answer = service_fn(|request| {
        slot.record_activity();
        let response = routes.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // A probe that keeps its connection would take the place of another one.
        .keep_alive(false)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::select! {
        () = slot.ended().cancelled() => (),
        // A peer that disconnects or sends an invalid request affects only its own connection.
        _ended = timeout(CONNECTION_TIMEOUT, connection) => (),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::adapters::http::routes::Readiness;

    /// How long a kubelet waits for the answer to a probe by default.
    const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

    fn serve() -> SocketAddr {
        let port = BoundPort::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = port.address;
        tokio::spawn(port.serve(Routes::Health(Readiness::default())));
        address
    }

    /// All connections of both ports together hold little memory.
    #[tokio::test]
    async fn refuses_a_long_head_before_it_is_complete() {
        let mut stream = TcpStream::connect(serve()).await.unwrap();
        let head =
            format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(HEAD_MAX));
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 431");
    }

    async fn probe(address: SocketAddr) -> io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Opens as many idle connections as the `speaking` limit, again and again.
    #[tokio::test]
    async fn answers_a_probe_despite_many_idle_connections() {
        let address = serve();
        let mut idle = Vec::new();
        for round in 0..20 {
            for _ in 0..32 {
                idle.push(TcpStream::connect(address).await.unwrap());
            }
            let answer = timeout(PROBE_TIMEOUT, probe(address)).await;
            let answer = answer.unwrap_or_else(|_| panic!("round {round}: no answer")).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "round {round}: {answer}");
        }
    }

    #[tokio::test]
    async fn closes_a_connection_without_a_request_after_a_second() {
        let address = serve();
        let mut idle = TcpStream::connect(address).await.unwrap();
        let ended = timeout(Duration::from_secs(4), idle.read(&mut [0])).await;
        assert_eq!(ended.expect("the connection ends").unwrap_or_default(), 0);
    }
}
