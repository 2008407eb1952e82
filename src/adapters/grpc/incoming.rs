//! Accepts connections: checks which peers may connect, bounds how many are open, and chooses the
//! connection to close when there are too many.

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
    connection::{InboundConnection, has_gone},
    socket::Listeners,
};
use crate::{
    adapters::connections::{
        slot::{Slot, Slots},
        table::Limits,
    },
    ports::{
        audit::Caller,
        telemetry::{EndReason, Event, Telemetry},
    },
};

/// How many connections may be open at once. An API server holds one connection for each provider
/// entry, and its health checks a few more. Any more come from a mistake or an attack. The limits
/// leave room for many: a client whose process is slow must have time for its first request while
/// another process connects as fast as it can. All limits stay below 1024 descriptors, the usual
/// limit of a process.
///
/// The number of begun requests bounds the memory that unfinished requests hold: see
/// [`server`](super::server).
pub(super) const LIMITS: Limits = Limits { silent: 512, speaking: 256, requests: 320, held: 416 };

/// How long a peer may send nothing after it has connected.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Most connections that are silent or wait for service, including those that were closed and are
/// not dropped yet.
const UNSERVED_HELD_MAX: usize = 640;

/// Most connections that were closed and are not dropped yet, in addition to those that are served.
/// They keep their memory until they are dropped, so new connections wait.
const ENDING_MAX: usize = 8;

/// Most connections that may hold the memory of requests.
pub(super) const CONNECTIONS_MAX: usize = LIMITS.speaking + ENDING_MAX;

/// The least time between two warnings about refused and closed connections, so that a process that
/// connects in a loop does not fill the log.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// How long to wait after a failed accept: the process has no free descriptor or no memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which peers may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerPolicy {
    /// Every process that the mode of the socket file admits.
    FileMode,
    /// Root, the uid of this process, and these uids. The kernel reports the uid of the peer
    /// (`SO_PEERCRED`).
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

/// Returns an endless stream of admitted connections that have sent something. Waits after a failed
/// accept and tries again. Accepts every new connection; when there are too many, closes another
/// one. Closes each connection when it was served for `most`.
///
/// # Errors
/// Returns an error when the runtime cannot take over the first listener.
pub(super) fn admitted(
    listeners: Listeners,
    policy: PeerPolicy,
    telemetry: Arc<dyn Telemetry>,
    most: Duration,
) -> io::Result<impl Stream<Item = io::Result<InboundConnection>>> {
    let acceptor = Acceptor::new(listeners, policy, telemetry, most)?;
    Ok(stream::unfold(acceptor, |mut acceptor| async move {
        Some((Ok(acceptor.next().await), acceptor))
    }))
}

/// How the wait for the first bytes ended. `None` when the peer has gone or the connection was
/// closed to make room.
type FirstBytes = Option<Result<InboundConnection, SilenceTimeout>>;

/// The peer sent nothing within [`SILENCE_MAX`].
struct SilenceTimeout;

/// Accepts connections and hands them to the HTTP/2 library.
struct Acceptor {
    listener: UnixListener,
    /// Receives listeners that replace `listener`.
    replacements: mpsc::Receiver<std::os::unix::net::UnixListener>,
    policy: PeerPolicy,
    telemetry: Arc<dyn Telemetry>,
    /// How long a connection is served.
    most: Duration,
    slots: Slots<u32>,
    /// Connections that have sent nothing yet. The HTTP/2 library does not get them.
    silent: FuturesUnordered<BoxFuture<'static, FirstBytes>>,
    /// Connections that have sent something and wait to be served.
    waiting: VecDeque<InboundConnection>,
    /// Holds a permit for each connection that may be served. Dropping the connection returns it.
    served: Arc<Semaphore>,
    /// The warnings, each with a limit of its own.
    failed: Rarely,
    denied: Rarely,
    crowded: Rarely,
}

impl Acceptor {
    fn new(
        listeners: Listeners,
        policy: PeerPolicy,
        telemetry: Arc<dyn Telemetry>,
        most: Duration,
    ) -> io::Result<Self> {
        Ok(Self {
            listener: UnixListener::from_std(listeners.first)?,
            replacements: listeners.replacements,
            policy,
            telemetry,
            most,
            slots: Slots::new(LIMITS),
            silent: FuturesUnordered::new(),
            waiting: VecDeque::new(),
            served: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            failed: Rarely::default(),
            denied: Rarely::default(),
            crowded: Rarely::default(),
        })
    }

    async fn next(&mut self) -> InboundConnection {
        // Gives the previous connection a chance to run before new connections take slots.
        yield_now().await;
        loop {
            let failed = self.drain_backlog().is_err();
            while let Some(Some(first_bytes)) = self.silent.next().now_or_never() {
                self.enqueue(first_bytes);
            }
            if let Some(connection) = self.first_waiting() {
                if connection.record_activity() {
                    self.report_crowding();
                }
                return connection;
            }
            let served = Arc::clone(&self.served);
            // When it is full, a connection that is served or was closed makes room, and wakes this task.
            let accepts = !failed && self.has_room();
            tokio::select! {
                _permit = served.acquire(), if !self.waiting.is_empty() => (),
                Some(first_bytes) = self.silent.next() => self.enqueue(first_bytes),
                Some(listener) = self.replacements.recv() => self.listen_with(listener),
                () = sleep(ACCEPT_PAUSE), if failed => (),
                accepted = self.listener.accept(), if accepts => {
                    // Ignores an error here: the next accept meets it again and reports it.
                    if let Ok((stream, _)) = accepted {
                        self.admit(stream);
                    }
                }
            }
        }
    }

    /// Returns the next connection to serve, if one waits and a permit is free.
    fn first_waiting(&mut self) -> Option<InboundConnection> {
        while self.waiting.front().is_some_and(|first| !first.is_open()) {
            drop(self.waiting.pop_front());
        }
        let permit = Arc::clone(&self.served).try_acquire_owned().ok()?;
        let telemetry = Arc::clone(&self.telemetry);
        Some(self.waiting.pop_front()?.served_by(permit, self.most, telemetry))
    }

    /// Listens with `listener` from now on. First accepts what waits at the previous listener, if
    /// there is room.
    fn listen_with(&mut self, listener: std::os::unix::net::UnixListener) {
        let _reported = self.drain_backlog();
        match UnixListener::from_std(listener) {
            Ok(listener) => self.listener = listener,
            Err(error) => self.failed.warn(format_args!("cannot listen on the socket: {error}")),
        }
    }

    /// Accepts all waiting connections, up to [`UNSERVED_HELD_MAX`] that are not served. Connections
    /// that were closed and not dropped yet count, because they hold descriptors.
    fn drain_backlog(&mut self) -> Result<(), ()> {
        while self.has_room() {
            match self.listener.accept().now_or_never() {
                Some(Ok((stream, _))) => self.admit(stream),
                Some(Err(error)) => {
                    self.failed
                        .warn(format_args!("cannot accept a connection: {error}; trying again"));
                    return Err(());
                }
                None => break,
            }
        }
        Ok(())
    }

    /// Returns whether another connection may be held. Drops closed ones that wait, if that is needed.
    fn has_room(&mut self) -> bool {
        let silent = self.silent.len();
        let is_full = |waiting: usize| silent.saturating_add(waiting) >= UNSERVED_HELD_MAX;
        if is_full(self.waiting.len()) {
            self.waiting.retain(InboundConnection::is_open);
        }
        !is_full(self.waiting.len())
    }

    /// Takes a new connection, if its peer may connect and is still there. A connection whose peer
    /// has gone already must not displace another one.
    fn admit(&mut self, stream: UnixStream) {
        let Ok(peer) = stream.peer_cred() else { return };
        let uid = peer.uid();
        if !self.policy.admits(uid) {
            self.telemetry.record(Event::PeerDenied);
            self.denied.warn(format_args!(
                "refused a connection of uid {uid}, which may not connect; add it with --allowed-uid if it should"
            ));
            return;
        }
        if has_gone(&stream) {
            return;
        }
        let (slot, crowded) = self.slots.take(uid);
        let caller = Caller { uid, gid: peer.gid(), pid: peer.pid() };
        self.silent.push(wait_for_first_bytes(stream, slot, caller).boxed());
        if crowded {
            self.report_crowding();
        }
    }

    /// Puts a connection that has sent something into the queue for service. Reports one that was
    /// silent for too long.
    fn enqueue(&mut self, first_bytes: FirstBytes) {
        match first_bytes {
            Some(Ok(connection)) => {
                // Drops closed connections, because they hold descriptors.
                if self.waiting.len() >= LIMITS.silent {
                    self.waiting.retain(InboundConnection::is_open);
                }
                self.waiting.push_back(connection);
            }
            Some(Err(SilenceTimeout)) => {
                self.telemetry.record(Event::ConnectionEnded(EndReason::Silent));
            }
            None => (),
        }
    }

    fn report_crowding(&mut self) {
        self.telemetry.record(Event::ConnectionEnded(EndReason::Crowded));
        let Limits { silent, speaking, .. } = LIMITS;
        self.crowded.warn(format_args!(
            "closed a connection to make room for a new one: at most {speaking} are served, and at most {silent} may be silent; \
             find the process that opens many"
        ));
    }
}

/// Logs one kind of warning at most once in [`WARN_EVERY`].
#[derive(Debug, Default)]
struct Rarely(Option<Instant>);

impl Rarely {
    fn warn(&mut self, what: fmt::Arguments<'_>) {
        let now = Instant::now();
        if self.0.is_none_or(|until| now >= until) {
            self.0 = Some(now + WARN_EVERY);
            tracing::warn!("{what}");
        } else {
            tracing::debug!("{what}");
        }
    }
}

async fn wait_for_first_bytes(stream: UnixStream, slot: Slot<u32>, caller: Caller) -> FirstBytes {
    let has_bytes = tokio::select! {
        () = slot.ended().cancelled() => return None,
        has_bytes = timeout(SILENCE_MAX, has_sent(&stream)) => has_bytes,
    };
    match has_bytes {
        Ok(true) => Some(Ok(InboundConnection::new(stream, slot, caller))),
        Ok(false) => None,
        Err(_elapsed) => Some(Err(SilenceTimeout)),
    }
}

/// Waits for the first byte of the peer and does not consume it. Returns false when the peer has
/// gone: nothing would read an answer.
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

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;
    use crate::adapters::grpc::{address::SocketAddress, socket::BoundSocket};

    /// A process that was stopped for a moment finds such a backlog.
    #[tokio::test]
    async fn serves_a_waiting_client_before_many_that_have_gone() {
        let directory = tempfile::tempdir().unwrap();
        let address = SocketAddress::File(directory.path().join("k.sock"));
        let (listeners, _guard) = BoundSocket::bind(&address).unwrap().guarded();
        let connect = || std::os::unix::net::UnixStream::connect(directory.path().join("k.sock"));
        let mut client = connect().unwrap();
        client.write_all(b"PRI").unwrap();
        for _ in 0..3 * LIMITS.silent {
            connect().unwrap().write_all(b"PRI").unwrap();
        }
        let admitted = admitted(
            listeners,
            PeerPolicy::FileMode,
            Arc::new(DiscardingTelemetry),
            Duration::from_mins(1),
        )
        .unwrap();
        let first = pin!(admitted).next().await.unwrap().unwrap();
        assert!(first.is_open());
        client.set_nonblocking(true).unwrap();
        let ended = client.read(&mut [0]).unwrap_err();
        assert_eq!(
            ended.kind(),
            io::ErrorKind::WouldBlock,
            "the connection of the client stays open"
        );
    }

    /// Clients that stay, and have sent something. Closed ones keep their descriptors until they are
    /// dropped.
    #[tokio::test]
    async fn accepts_no_more_than_it_may_hold_of_clients_that_stay() {
        let all = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: all, maximum: all }).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("k.sock");
        let (listeners, _guard) =
            BoundSocket::bind(&SocketAddress::File(path.clone())).unwrap().guarded();
        let mut acceptor = Acceptor::new(
            listeners,
            PeerPolicy::FileMode,
            Arc::new(DiscardingTelemetry),
            Duration::from_mins(1),
        )
        .unwrap();
        let mut clients = Vec::new();
        for _ in 0..2 {
            for _ in 0..UNSERVED_HELD_MAX {
                let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
                client.write_all(b"PRI").unwrap();
                clients.push(client);
            }
            let accepted = acceptor.listener.accept().await.unwrap();
            acceptor.admit(accepted.0);
            // A task that never pauses is made to pause by the runtime.
            for _ in 0..UNSERVED_HELD_MAX {
                let _drained = acceptor.drain_backlog();
                yield_now().await;
            }
            let held = acceptor.silent.len() + acceptor.waiting.len();
            assert_eq!(held, UNSERVED_HELD_MAX);
            while let Some(first_bytes) = acceptor.silent.next().await {
                acceptor.enqueue(first_bytes);
            }
        }
    }

    #[derive(Debug)]
    struct DiscardingTelemetry;

    impl Telemetry for DiscardingTelemetry {
        fn record(&self, _: Event<'_>) {}
    }

    #[test]
    fn an_abstract_socket_admits_root_our_uid_and_listed_uids() {
        let own = rustix::process::geteuid().as_raw();
        let policy = PeerPolicy::Uids(BTreeSet::from([4_242]));
        for uid in [0, own, 4_242] {
            assert!(policy.admits(uid), "{uid}");
        }
        assert!(!policy.admits(4_243));
    }
}
