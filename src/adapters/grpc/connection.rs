//! One connection to the socket: its bytes, its slot among the others, and its end.

use std::{
    io, mem,
    pin::Pin,
    slice,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Extensions;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep},
};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Request, transport::server::Connected};

use super::authority::AuthorityRewriter;
use crate::{
    adapters::connections::{
        slot::{self, Slot},
        table::Full,
    },
    ports::{
        audit::Caller,
        telemetry::{Event, Telemetry},
    },
};

/// Most bytes that a connection reads before it lets other tasks run. One read can then begin few
/// calls, and each drops most of its headers before the next read.
pub(super) const READ_MAX: usize = 256;

/// Identifies the connection that carried a request. Each request has it as an extension.
#[derive(Clone)]
pub(super) struct Origin {
    requests: slot::RequestCounter<u32>,
    caller: Caller,
}

/// A connection that has sent something. Counts against the limit until it is dropped.
#[derive(Debug)]
pub(super) struct InboundConnection {
    stream: UnixStream,
    authority: AuthorityRewriter,
    slot: Slot<u32>,
    caller: Caller,
    service: Option<Service>,
    /// Whether the last poll has read bytes.
    has_read: bool,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// What a connection has while it is served.
#[derive(Debug)]
struct Service {
    _permit: OwnedSemaphorePermit,
    /// Ends when the connection must be closed.
    closing: Pin<Box<Sleep>>,
    telemetry: Arc<dyn Telemetry>,
}

impl InboundConnection {
    pub(super) fn new(stream: UnixStream, slot: Slot<u32>, caller: Caller) -> Self {
        let ended = Box::pin(slot.ended().clone().cancelled_owned());
        Self {
            stream,
            authority: AuthorityRewriter::default(),
            slot,
            caller,
            service: None,
            has_read: false,
            ended,
        }
    }

    /// Returns the connection with the `permit` that lets it be served for `most`. Dropping the
    /// connection returns the permit. Reports to `telemetry` when the client is an old one.
    pub(super) fn served_by(
        self,
        permit: OwnedSemaphorePermit,
        most: Duration,
        telemetry: Arc<dyn Telemetry>,
    ) -> Self {
        let service = Service { _permit: permit, closing: Box::pin(sleep(most)), telemetry };
        Self { service: Some(service), ..self }
    }

    /// Returns whether the connection should be served: the peer is still there, and the connection
    /// was not closed to make room.
    pub(super) fn is_open(&self) -> bool {
        !has_gone(&self.stream) && !self.slot.ended().is_cancelled()
    }

    /// Records that the peer has sent something. Returns whether another connection was closed to
    /// make room for this one.
    pub(super) fn record_activity(&self) -> bool {
        self.slot.record_activity()
    }

    /// Fails when this connection was closed to make room for another one, or is too old.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let closing = self.service.as_mut().map(|service| service.closing.as_mut());
        if self.ended.as_mut().poll(cx).is_ready()
            || closing.is_some_and(|closing| closing.poll(cx).is_ready())
        {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

/// Returns whether the peer has closed its end: nothing would read an answer. Asks the kernel,
/// because tokio learns it only when its event loop runs again.
pub(super) fn has_gone(stream: &UnixStream) -> bool {
    let mut asked = PollFd::new(stream, PollFlags::RDHUP);
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(slice::from_mut(&mut asked), Some(&now)).is_ok()
        && asked.revents().intersects(PollFlags::HUP | PollFlags::RDHUP)
}

/// Counts the request with these extensions as begun until the returned value is dropped.
///
/// # Errors
/// Returns [`Full`] when too many requests are unfinished or the connection was closed. Refuse the
/// request then.
pub(super) fn begun(extensions: &Extensions) -> Result<Option<slot::BegunRequest<u32>>, Full> {
    extensions.get::<Origin>().map(|origin| origin.requests.begin()).transpose()
}

/// Counts `request` as complete and active until the returned value is dropped.
pub(super) fn in_hand<T>(request: &Request<T>) -> Option<slot::ActiveCall<u32>> {
    request.extensions().get::<Origin>().map(|origin| origin.requests.call())
}

/// Returns the process that sent `request`.
pub(super) fn caller<T>(request: &Request<T>) -> Option<Caller> {
    request.extensions().get::<Origin>().map(|origin| origin.caller)
}

impl Connected for InboundConnection {
    type ConnectInfo = Origin;

    fn connect_info(&self) -> Origin {
        Origin { requests: self.slot.counter(), caller: self.caller }
    }
}

impl AsyncRead for InboundConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_ended(cx)?;
        if mem::take(&mut this.has_read) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = buf.remaining().min(READ_MAX);
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(count));
        ready!(this.authority.poll_read(Pin::new(&mut this.stream), cx, &mut part))?;
        let count = part.filled().len();
        buf.advance(count);
        if let Some(service) = &this.service
            && this.authority.take_first_rewrite()
        {
            service.telemetry.record(Event::AuthorityRewritten);
        }
        this.has_read = true;
        this.slot.record_activity();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for InboundConnection {
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
