//! Accepting connections: who may, and how many at once.

use std::{
    collections::BTreeSet,
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream::{self, Stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};
use tonic::transport::server::Connected;

use super::authority::Mender;

/// Connections that are served at once. An API server holds one for each provider entry, its
/// health reporters a few more; the rest is somebody's mistake.
const CONNECTIONS_MAX: usize = 64;

/// How long a peer may stay silent at first; it would hold a place among those that are served.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How often refused connections are told of: whoever dials in a loop must not fill the log.
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

/// One connection; it counts against the limit until it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    authority: Mender,
    /// Runs until the peer has said something.
    silence: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

/// The admitted connections, for ever: a failed accept is waited out, a refused peer is dropped.
pub(super) fn admitted(
    listener: UnixListener,
    policy: PeerPolicy,
) -> impl Stream<Item = io::Result<Connection>> {
    let door =
        Door { policy, permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)), told_until: None };
    stream::unfold((listener, door), |(listener, mut door)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    if let Some(connection) = door.admit(stream) {
                        return Some((Ok(connection), (listener, door)));
                    }
                }
                Err(error) => {
                    door.tell(format_args!("cannot accept a connection, trying again: {error}"));
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// Decides who comes in.
struct Door {
    policy: PeerPolicy,
    permits: Arc<Semaphore>,
    told_until: Option<Instant>,
}

impl Door {
    fn admit(&mut self, stream: UnixStream) -> Option<Connection> {
        let peer = stream.peer_cred().ok()?;
        if !self.policy.admits(peer.uid()) {
            self.tell(format_args!(
                "refused a connection of uid {}, which is not allowed; see --allowed-uid",
                peer.uid()
            ));
            return None;
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.tell(format_args!(
                "refused a connection: {CONNECTIONS_MAX} are served already; look for a process that opens many"
            ));
            return None;
        };
        let silence = Some(Box::pin(sleep(SILENCE_MAX)));
        Some(Connection { stream, authority: Mender::default(), silence, _permit: permit })
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

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, authority, silence, .. } = self.get_mut();
        let read = authority.poll_read(Pin::new(stream), cx, buf);
        if read.is_ready() {
            *silence = None;
        } else if let Some(silence) = silence
            && silence.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
