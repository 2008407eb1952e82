//! One connection to the socket: its octets, its place among the others, and its end.

use std::{
    io,
    pin::Pin,
    slice,
    task::{Context, Poll},
};

use http::Extensions;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    sync::OwnedSemaphorePermit,
};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Request, transport::server::Connected};

use super::authority::Mender;
use crate::{
    adapters::connections::{
        seat::{self, Seat},
        table::Full,
    },
    ports::audit::Caller,
};

/// The connection that a request came by. Each request carries it.
#[derive(Clone)]
pub(super) struct Origin {
    seat: seat::Caller<u32>,
    caller: Caller,
}

/// One connection that has sent something. It counts against the limit until it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    authority: Mender,
    seat: Seat<u32>,
    caller: Caller,
    _permit: Option<OwnedSemaphorePermit>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, seat: Seat<u32>, caller: Caller) -> Self {
        let ended = Box::pin(seat.ended().clone().cancelled_owned());
        Self { stream, authority: Mender::default(), seat, caller, _permit: None, ended }
    }

    /// The same, once it is served. `permit` is given back when it is dropped.
    pub(super) fn served_by(self, permit: OwnedSemaphorePermit) -> Self {
        Self { _permit: Some(permit), ..self }
    }

    /// Whether it is worth serving: no other connection has taken its place, and the peer is there.
    pub(super) fn is_open(&self) -> bool {
        !has_gone(&self.stream) && !self.seat.ended().is_cancelled()
    }

    /// Notes that the peer has sent something, and says whether another connection is ended for
    /// this one.
    pub(super) fn heard(&self) -> bool {
        self.seat.heard()
    }

    /// Fails once another connection has taken this one's place.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.ended.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

/// Whether the peer has closed its end: nobody would read an answer. Asks the system at once, where
/// tokio would know only after its next turn.
pub(super) fn has_gone(stream: &UnixStream) -> bool {
    let mut asked = PollFd::new(stream, PollFlags::RDHUP);
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(slice::from_mut(&mut asked), Some(&now)).is_ok()
        && asked.revents().intersects(PollFlags::HUP | PollFlags::RDHUP)
}

/// Notes that the request with these extensions has begun, until the returned value is dropped.
///
/// # Errors
/// Where too many are held: the request is to be refused.
pub(super) fn begun(extensions: &Extensions) -> Result<Option<seat::Begun<u32>>, Full> {
    extensions.get::<Origin>().map(|origin| origin.seat.begin()).transpose()
}

/// Notes that `request` is whole and in hand, until the returned value is dropped.
pub(super) fn in_hand<T>(request: &Request<T>) -> Option<seat::Calling<u32>> {
    request.extensions().get::<Origin>().map(|origin| origin.seat.call())
}

/// The process that sent `request`.
pub(super) fn caller<T>(request: &Request<T>) -> Option<Caller> {
    request.extensions().get::<Origin>().map(|origin| origin.caller)
}

impl Connected for Connection {
    type ConnectInfo = Origin;

    fn connect_info(&self) -> Origin {
        Origin { seat: self.seat.caller(), caller: self.caller }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_ended(cx)?;
        let read = this.authority.poll_read(Pin::new(&mut this.stream), cx, buf);
        if read.is_ready() {
            this.seat.heard();
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_ended(cx)?;
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_ended(cx)?;
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
