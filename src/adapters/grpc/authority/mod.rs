//! API servers before 1.32 on file sockets: they send the socket's path as `:authority`, and the
//! HTTP/2 library resets such a request before anybody sees it.
//!
//! The frames arrive on our own socket, so what the library will not take is mended before it
//! reads it: each character that a host name cannot have gives way to one whose code is as long.
//! No length changes, be it of a frame, of a header block, or of an entry in the peer's dynamic
//! table, so that nothing has to be encoded anew and no state has to follow the peer's. Nobody
//! looks at the authority afterwards.
//!
//! Only a connection whose first request needs it is read further than that; of newer API servers
//! nothing is held or copied once their first request has come.

mod block;
mod frames;
mod huffman;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use self::frames::Frames;

/// How much is read at once as long as frames are looked at.
const READ: usize = 4_096;

/// Reads one connection, from its first octet on.
#[derive(Debug, Default)]
pub struct Mender {
    frames: Frames,
}

impl Mender {
    /// Reads what comes from `stream`, the same one each time, with its authorities mended.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn poll_read<S: AsyncRead>(
        &mut self,
        mut stream: Pin<&mut S>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.frames.is_done() && buf.remaining() > 0 {
            let octets = self.frames.pull(buf.remaining());
            if !octets.is_empty() {
                buf.put_slice(&octets);
                return Poll::Ready(Ok(()));
            }
            let mut chunk = [0; READ];
            let mut came = ReadBuf::new(&mut chunk);
            ready!(stream.as_mut().poll_read(cx, &mut came))?;
            if came.filled().is_empty() {
                self.frames.end();
            } else {
                self.frames.push(came.filled());
            }
        }
        stream.poll_read(cx, buf)
    }
}
