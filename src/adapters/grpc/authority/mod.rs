//! Rewrites the `:authority` of API servers before 1.32. On a file socket they send the path of the
//! socket as `:authority`, and the HTTP/2 library resets such a request before any of our code
//! runs.
//!
//! So this module changes the bytes before the library reads them. It replaces each character that
//! a host name cannot have by a character whose code is as long. No length changes: neither of a
//! frame, nor of a header block, nor of an entry in the dynamic table of the peer. So nothing has
//! to be encoded again, and no copy of that table is needed. No code uses the authority afterwards.
//!
//! Only a connection whose first request needs it is parsed further. For newer API servers nothing
//! is buffered or copied after the first request.
//!
//! Remove this module after 25 February 2028, when the support of the last known product with such
//! an API server ends (OpenShift 4.18, on Kubernetes 1.31), if `authority_rewritten` stays 0.

mod block;
mod frames;
mod huffman;

use std::{
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use self::frames::Frames;

/// Bytes to read at once while frames are parsed.
const READ: usize = 4_096;

/// Reads one connection from its first byte on, and rewrites its authorities.
#[derive(Debug, Default)]
pub struct AuthorityRewriter {
    frames: Frames,
    is_counted: bool,
}

impl AuthorityRewriter {
    /// Returns true once, when the first request of the connection was rewritten.
    pub fn take_first_rewrite(&mut self) -> bool {
        self.frames.has_rewritten() && !mem::replace(&mut self.is_counted, true)
    }

    /// Reads from `stream` into `buf`, with the authorities rewritten. Pass the same stream each
    /// time.
    ///
    /// # Errors
    /// Returns the errors of the stream.
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
