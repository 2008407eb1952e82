//! A small server for small answers: bounded in connections and in time.

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

use super::endpoints::Endpoints;
use crate::adapters::connections::{
    seat::{Seat, Seats},
    table::Limits,
};

/// How many connections may be open at once. Those whose request has not come yet are the silent
/// ones; a prober is among the others for milliseconds, a scraper for longer.
const LIMITS: Limits = Limits { silent: 128, speaking: 32, requests: 32, held: 32 };

/// How long a request's head may take, and how long a connection may live.
const HEAD_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that may wait to be accepted; the system's own limit counts too. With a full backlog
/// a prober would be silent for a second before it tries again.
const BACKLOG: i32 = 4_096;

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
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = StdListener::from(socket);
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Serves `endpoints`, for ever. A newcomer is always accepted; where there are too many
    /// connections, one of the address with the most ends, the oldest of those that have not sent
    /// their request first.
    ///
    /// # Errors
    /// When the runtime cannot take over the listener.
    pub async fn serve(self, endpoints: Endpoints) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let seats = Seats::new(LIMITS);
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (seat, _another_ended) = seats.take(peer.ip());
            drop(tokio::spawn(answer(stream, seat, endpoints.clone())));
        }
    }
}

/// Answers one request, unless the connection must end before.
async fn answer(stream: TcpStream, seat: Seat<IpAddr>, endpoints: Endpoints) {
    let answer = service_fn(|request| {
        seat.heard();
        let response = endpoints.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // A prober that holds on to its connection would keep others out.
        .keep_alive(false)
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::select! {
        () = seat.ended().cancelled() => (),
        // A peer that goes away or talks nonsense ends its own connection.
        _ended = timeout(CONNECTION_TIMEOUT, connection) => (),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::adapters::http::endpoints::Readiness;

    /// What a kubelet waits for the answer to a probe by default.
    const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

    fn serve() -> SocketAddr {
        let port = BoundPort::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = port.address;
        tokio::spawn(port.serve(Endpoints::Health(Readiness::default())));
        address
    }

    async fn probe(address: SocketAddr) -> io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// As many idle connections as two probers would find before them, and many more.
    #[tokio::test]
    async fn idle_connections_of_one_peer_keep_no_probe_out() {
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
    async fn a_connection_without_a_request_ends_after_a_second() {
        let address = serve();
        let mut idle = TcpStream::connect(address).await.unwrap();
        let ended = timeout(Duration::from_secs(4), idle.read(&mut [0])).await;
        assert_eq!(ended.expect("it ends").unwrap_or_default(), 0);
    }
}
