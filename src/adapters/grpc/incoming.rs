//! Accepting connections: who may, how many at once, and which one ends when there are more.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt, io,
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{self, FuturesUnordered, Stream},
};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
    task::yield_now,
    time::{Instant, sleep, timeout},
};

use super::{
    connection::{Connection, has_gone},
    socket::Listeners,
};
use crate::{
    adapters::connections::{
        seat::{Seat, Seats},
        table::Limits,
    },
    ports::{
        audit::Caller,
        telemetry::{EndReason, Event, Telemetry},
    },
};

/// How many connections may be open at once. An API server holds one for each provider entry, its
/// health reporters a few more; the rest is a mistake or an attack. There is room for many more, so
/// that a client whose process the machine holds up has time for its first request while another
/// process dials as fast as it can. All of them stay below the usual limit of 1024 descriptors.
///
/// The requests that have begun bound the memory of what is never finished: see
/// [`server`](super::server).
pub(super) const LIMITS: Limits = Limits { silent: 512, speaking: 256, requests: 512, held: 704 };

/// How long a peer may stay silent at first.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How many silent connections are held, with those that were ended and not dropped yet.
const SILENT_HELD_MAX: usize = 640;

/// How many connections may exist beyond those that are served: they were ended, and are not dropped
/// yet. Until then they hold what they held, so others wait to be served.
const ENDING_MAX: usize = 8;

/// All connections that may hold anything.
pub(super) const CONNECTIONS_MAX: usize = LIMITS.speaking + ENDING_MAX;

/// How often refused and ended connections are told of, so that a process that dials in a loop does
/// not fill the log.
const TOLD_EVERY: Duration = Duration::from_mins(1);

/// How long to wait after an accept that failed: the process is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerPolicy {
    /// Whoever the mode of the socket's file lets in.
    FileMode,
    /// Root, our own uid, and these; checked by `SO_PEERCRED`.
    Uids(BTreeSet<u32>),
}

impl PeerPolicy {
    fn admits(&self, uid: u32) -> bool {
        match self {
            Self::FileMode => true,
            Self::Uids(allowed) => {
                uid == 0 || uid == rustix::process::geteuid().as_raw() || allowed.contains(&uid)
            }
        }
    }
}

/// The connections that were admitted and have sent something, for ever. A failed accept is waited
/// out. A newcomer is always accepted; where there are too many connections, another one ends.
///
/// # Errors
/// When the runtime cannot take over the first listener.
pub(super) fn admitted(
    listeners: Listeners,
    policy: PeerPolicy,
    telemetry: Arc<dyn Telemetry>,
) -> io::Result<impl Stream<Item = io::Result<Connection>>> {
    let door = Door {
        listener: UnixListener::from_std(listeners.first)?,
        anew: listeners.anew,
        policy,
        telemetry,
        seats: Seats::new(LIMITS),
        silent: FuturesUnordered::new(),
        waiting: VecDeque::new(),
        served: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        told_until: None,
    };
    Ok(stream::unfold(door, |mut door| async move { Some((Ok(door.next().await), door)) }))
}

/// What became of a silent connection; `None` when it went away or was ended.
type FirstWord = Option<Result<Connection, Silence>>;

/// The peer was silent for too long.
struct Silence;

/// Decides who comes in.
struct Door {
    listener: UnixListener,
    /// Listeners to use from then on.
    anew: mpsc::Receiver<std::os::unix::net::UnixListener>,
    policy: PeerPolicy,
    telemetry: Arc<dyn Telemetry>,
    seats: Seats<u32>,
    /// Connections that have sent nothing yet. The HTTP/2 library sees none of them.
    silent: FuturesUnordered<BoxFuture<'static, FirstWord>>,
    /// Connections that have sent something and wait to be served.
    waiting: VecDeque<Connection>,
    /// A permit for each connection that may be served, until it is dropped.
    served: Arc<Semaphore>,
    told_until: Option<Instant>,
}

impl Door {
    async fn next(&mut self) -> Connection {
        // The connection that was handed on last has its turn before others take their seats.
        yield_now().await;
        loop {
            let failed = self.drain_backlog().is_err();
            while let Some(Some(first_word)) = self.silent.next().now_or_never() {
                self.sort(first_word);
            }
            if let Some(connection) = self.first_waiting() {
                if connection.heard() {
                    self.ended_for_another();
                }
                return connection;
            }
            let served = Arc::clone(&self.served);
            tokio::select! {
                _one_was_dropped = served.acquire(), if !self.waiting.is_empty() => (),
                Some(first_word) = self.silent.next() => self.sort(first_word),
                Some(listener) = self.anew.recv() => self.listen_with(listener),
                () = sleep(ACCEPT_PAUSE), if failed => (),
                accepted = self.listener.accept(), if !failed => {
                    // An error comes again, and is told of then.
                    if let Ok((stream, _)) = accepted {
                        self.admit(stream);
                    }
                }
            }
        }
    }

    /// The connection that is served next, if one waits and may be served.
    fn first_waiting(&mut self) -> Option<Connection> {
        while self.waiting.front().is_some_and(|first| !first.is_open()) {
            drop(self.waiting.pop_front());
        }
        let permit = Arc::clone(&self.served).try_acquire_owned().ok()?;
        Some(self.waiting.pop_front()?.served_by(permit))
    }

    /// Listens with `listener` from now on. What still waits at the former one is taken in.
    fn listen_with(&mut self, listener: std::os::unix::net::UnixListener) {
        let _told = self.drain_backlog();
        match UnixListener::from_std(listener) {
            Ok(listener) => self.listener = listener,
            Err(error) => self.tell(format_args!("cannot listen on the socket: {error}")),
        }
    }

    /// Accepts what waits, up to a bound. Connections that were ended and not dropped yet count, so
    /// that descriptors are bounded.
    fn drain_backlog(&mut self) -> Result<(), ()> {
        while self.silent.len() < SILENT_HELD_MAX {
            match self.listener.accept().now_or_never() {
                Some(Ok((stream, _))) => self.admit(stream),
                Some(Err(error)) => {
                    self.tell(format_args!("cannot accept a connection, trying again: {error}"));
                    return Err(());
                }
                None => break,
            }
        }
        Ok(())
    }

    /// Takes in a connection that has just been accepted, if its peer may connect and is still
    /// there: connections that came and went in a moment cost no other one its place.
    fn admit(&mut self, stream: UnixStream) {
        let Ok(peer) = stream.peer_cred() else { return };
        let uid = peer.uid();
        if !self.policy.admits(uid) {
            self.telemetry.record(Event::PeerDenied);
            self.tell(format_args!(
                "refused a connection of uid {uid}, which is not allowed; see --allowed-uid"
            ));
            return;
        }
        if has_gone(&stream) {
            return;
        }
        let (seat, crowded) = self.seats.take(uid);
        let caller = Caller { uid, gid: peer.gid(), pid: peer.pid() };
        self.silent.push(first_word(stream, seat, caller).boxed());
        if crowded {
            self.ended_for_another();
        }
    }

    /// Keeps a connection that has sent something until it is served.
    fn sort(&mut self, first_word: FirstWord) {
        match first_word {
            Some(Ok(connection)) => {
                // Those that were ended meanwhile hold descriptors.
                if self.waiting.len() >= LIMITS.silent {
                    self.waiting.retain(Connection::is_open);
                }
                self.waiting.push_back(connection);
            }
            Some(Err(Silence)) => {
                self.telemetry.record(Event::ConnectionEnded(EndReason::Silent));
            }
            None => (),
        }
    }

    fn ended_for_another(&mut self) {
        self.telemetry.record(Event::ConnectionEnded(EndReason::Crowded));
        let Limits { silent, speaking, .. } = LIMITS;
        self.tell(format_args!(
            "ended a connection for a new one: {speaking} are served at most, and {silent} may be silent; \
             look for a process that opens many"
        ));
    }

    fn tell(&mut self, what: fmt::Arguments<'_>) {
        let now = Instant::now();
        if self.told_until.is_none_or(|until| now >= until) {
            self.told_until = Some(now + TOLD_EVERY);
            tracing::warn!("{what}");
        } else {
            tracing::debug!("{what}");
        }
    }
}

async fn first_word(stream: UnixStream, seat: Seat<u32>, caller: Caller) -> FirstWord {
    let spoken = tokio::select! {
        () = seat.ended().cancelled() => return None,
        spoken = timeout(SILENCE_MAX, has_sent(&stream)) => spoken,
    };
    match spoken {
        Ok(true) => Some(Ok(Connection::new(stream, seat, caller))),
        Ok(false) => None,
        Err(_elapsed) => Some(Err(Silence)),
    }
}

/// Waits for the peer's first byte, and leaves it there. False when the peer has gone away: nobody
/// would read an answer.
async fn has_sent(stream: &UnixStream) -> bool {
    let ready = stream.ready(Interest::READABLE).await;
    ready.is_ok_and(|ready| ready.is_readable() && !ready.is_read_closed())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        pin::pin,
    };

    use super::*;
    use crate::adapters::grpc::{address::SocketAddress, socket::BoundSocket};

    /// As after a moment in which the machine held the process up.
    #[tokio::test]
    async fn a_client_before_many_that_came_and_went_is_served_first() {
        let directory = tempfile::tempdir().unwrap();
        let address = SocketAddress::File(directory.path().join("k.sock"));
        let (listeners, _guard) = BoundSocket::bind(&address).unwrap().guarded();
        let dial = || std::os::unix::net::UnixStream::connect(directory.path().join("k.sock"));
        let mut client = dial().unwrap();
        client.write_all(b"PRI").unwrap();
        for _ in 0..3 * LIMITS.silent {
            dial().unwrap().write_all(b"PRI").unwrap();
        }
        let admitted = admitted(listeners, PeerPolicy::FileMode, Arc::new(Unheard)).unwrap();
        let first = pin!(admitted).next().await.unwrap().unwrap();
        assert!(first.is_open());
        client.set_nonblocking(true).unwrap();
        let ended = client.read(&mut [0]).unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::WouldBlock, "it is not the client that was ended");
    }

    #[derive(Debug)]
    struct Unheard;

    impl Telemetry for Unheard {
        fn record(&self, _: Event<'_>) {}
    }

    #[test]
    fn an_abstract_socket_admits_root_us_and_the_named() {
        let own = rustix::process::geteuid().as_raw();
        let policy = PeerPolicy::Uids(BTreeSet::from([4_242]));
        for uid in [0, own, 4_242] {
            assert!(policy.admits(uid), "{uid}");
        }
        assert!(!policy.admits(4_243));
    }
}
