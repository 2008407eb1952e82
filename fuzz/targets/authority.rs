//! Checks that the rewriter hands on as many bytes as the peer sends, however they are cut, and
//! that a second pass changes nothing.
#![no_main]

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, ReadBuf};
use vault_kube_kms::adapters::grpc::authority::AuthorityRewriter;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The `:authority` of an older API server, and what it becomes.
const PATH: &[u8] = b"\x41\x06/run/k";
const HOST: &[u8] = b"\x41\x06-run-k";

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (shape, size, hostile) = input;
    let sent = match shape % 4 {
        0 => hostile.to_vec(),
        1 => [PREFACE, hostile].concat(),
        2 => [PREFACE, &request(hostile), &request(hostile)].concat(),
        _ => [PREFACE, &request(&[PATH, hostile].concat()), &request(hostile)].concat(),
    };
    let whole = through(&sent, usize::MAX);
    if shape % 4 == 3 && hostile.len() < 1_900 {
        // A request that needs a rewrite gets it, and nothing else of its frame changes.
        let end = PREFACE.len() + 9 + PATH.len() + hostile.len();
        let rewritten = [PREFACE, &request(&[HOST, hostile].concat())].concat();
        assert_eq!(whole[..end], rewritten);
    }
    assert_eq!(whole.len(), sent.len());
    assert_eq!(through(&sent, usize::from(size).max(1)), whole);
    assert_eq!(through(&whole, usize::MAX), whole);
});

/// A HEADERS frame that holds `block` whole.
fn request(block: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(block.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[..], &[1, 5, 0, 0, 0, 1], block].concat()
}

fn through(sent: &[u8], size: usize) -> Vec<u8> {
    let mut peer = Peer { sent, size };
    let (mut rewriter, mut came) = (AuthorityRewriter::default(), Vec::new());
    let mut space = vec![0; size.min(65_536)];
    loop {
        let mut buf = ReadBuf::new(&mut space);
        let read =
            rewriter.poll_read(pin!(&mut peer), &mut Context::from_waker(Waker::noop()), &mut buf);
        assert!(matches!(read, Poll::Ready(Ok(()))));
        if buf.filled().is_empty() {
            return came;
        }
        came.extend_from_slice(buf.filled());
    }
}

/// A peer whose octets come in pieces of `size`.
struct Peer<'a> {
    sent: &'a [u8],
    size: usize,
}

impl AsyncRead for Peer<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.sent.len().min(self.size).min(buf.remaining());
        let (piece, rest) = self.sent.split_at(count);
        buf.put_slice(piece);
        self.sent = rest;
        Poll::Ready(Ok(()))
    }
}
