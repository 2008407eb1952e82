//! Parses HTTP/2 frames (RFC 9113, section 4) as they arrive, to find where header blocks begin and
//! end.

use std::ops::Range;

use bytes::{Buf as _, Bytes, BytesMut};

use super::block;

/// The bytes that every connection begins with (section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most bytes of a header block with its frames. A longer block is not rewritten, and the server
/// refuses it (`HEADERS_MAX`). This also bounds what is held back.
const BLOCK_MAX: usize = 2_048;

/// Most frames of a header block. A block of more frames is not rewritten.
const FRAMES_MAX: usize = 16;

const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// What the next bytes of a connection are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    /// The preface.
    #[default]
    Preface,
    /// A frame.
    Frame,
    /// This many bytes of a frame that needs no change.
    Rest(usize),
    /// Bytes that pass through without a change.
    PassThrough,
}

/// Buffers the bytes of a peer and rewrites them where needed. Does not change what it cannot
/// parse: the HTTP/2 library then judges the original bytes.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Bytes that arrived and were not handed on yet.
    held: BytesMut,
    /// How many of them may be handed on.
    ready: usize,
    next: Next,
    /// Whether the first request was rewritten. If it was not, no other request is parsed.
    rewriting: bool,
}

impl Frames {
    /// Returns whether all further bytes may bypass this buffer.
    pub(super) fn is_done(&self) -> bool {
        self.next == Next::PassThrough && self.held.is_empty()
    }

    /// Returns whether a request was rewritten.
    pub(super) const fn has_rewritten(&self) -> bool {
        self.rewriting
    }

    /// Adds bytes that arrived.
    pub(super) fn push(&mut self, octets: &[u8]) {
        self.held.extend_from_slice(octets);
        while self.step().is_some() {}
        if self.next == Next::PassThrough {
            self.ready = self.held.len();
        }
    }

    /// Records that the stream has ended: hands on all that is held.
    pub(super) fn end(&mut self) {
        self.next = Next::PassThrough;
        self.ready = self.held.len();
    }

    /// Returns at most `most` of the bytes that are ready.
    pub(super) fn pull(&mut self, most: usize) -> Bytes {
        let count = self.ready.min(most);
        self.ready -= count;
        let octets = self.held.copy_to_bytes(count);
        if self.is_done() {
            self.held = BytesMut::new();
        }
        octets
    }

    /// Parses the held bytes that are not ready. Returns `None` when more bytes are needed.
    fn step(&mut self) -> Option<()> {
        let waiting = self.held.get(self.ready..).filter(|waiting| !waiting.is_empty())?;
        match self.next {
            Next::Preface => {
                let begun = waiting.iter().zip(PREFACE).all(|(came, due)| came == due);
                if !begun {
                    self.next = Next::PassThrough;
                } else if waiting.len() < PREFACE.len() {
                    return None;
                } else {
                    self.ready += PREFACE.len();
                    self.next = Next::Frame;
                }
            }
            Next::Rest(count) => {
                let came = count.min(waiting.len());
                self.ready += came;
                self.next = if came < count { Next::Rest(count - came) } else { Next::Frame };
            }
            Next::Frame => {
                let frame = Frame::read(waiting)?;
                if frame.kind == HEADERS {
                    self.rewrite_block()?;
                } else {
                    self.next = Next::Rest(FRAME_HEADER + frame.length);
                }
            }
            Next::PassThrough => return None,
        }
        Some(())
    }

    /// Rewrites the header block at the start of the bytes that are not ready. Returns `None` when
    /// the block is not complete.
    fn rewrite_block(&mut self) -> Option<()> {
        let waiting = self.held.get_mut(self.ready..)?;
        match Block::read(waiting) {
            Block::Partial => return None,
            Block::Unreadable => self.next = Next::PassThrough,
            Block::Whole { fragments, end } => {
                let mut block = gather(waiting, &fragments);
                if block::rewrite(&mut block) {
                    scatter(&block, waiting, &fragments);
                    self.rewriting = true;
                }
                self.ready += end;
                self.next = if self.rewriting { Next::Frame } else { Next::PassThrough };
            }
        }
        Some(())
    }
}

/// The header of one frame.
struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl Frame {
    fn read(octets: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = *octets.first_chunk::<FRAME_HEADER>()?;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        Some(Self { length, kind, flags, stream })
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A header block: a HEADERS frame and its CONTINUATION frames.
enum Block {
    /// The block is not complete yet.
    Partial,
    /// The places of its fragments, and the end of its last frame.
    Whole { fragments: Vec<Range<usize>>, end: usize },
    /// The block is too large or malformed.
    Unreadable,
}

impl Block {
    fn read(octets: &[u8]) -> Self {
        let (mut fragments, mut at, mut stream) = (Vec::new(), 0, None);
        loop {
            let Some(frame) = octets.get(at..).and_then(Frame::read) else { return Self::Partial };
            let belongs = match stream {
                None => frame.kind == HEADERS,
                Some(stream) => frame.kind == CONTINUATION && frame.stream == stream,
            };
            let start = at + FRAME_HEADER;
            let end = start + frame.length;
            if !belongs || end > BLOCK_MAX || fragments.len() == FRAMES_MAX {
                return Self::Unreadable;
            }
            let Some(payload) = octets.get(start..end) else { return Self::Partial };
            let Some(fragment) = fragment(&frame, payload) else { return Self::Unreadable };
            fragments.push(start + fragment.start..start + fragment.end);
            if frame.has(END_HEADERS) {
                return Self::Whole { fragments, end };
            }
            (at, stream) = (end, Some(frame.stream));
        }
    }
}

/// Returns the part of a payload that belongs to the header block, without padding and priority.
fn fragment(frame: &Frame, payload: &[u8]) -> Option<Range<usize>> {
    if frame.kind == CONTINUATION {
        return Some(0..payload.len());
    }
    let (padding, before) = match (frame.has(PADDED), payload.first()) {
        (true, padding) => (usize::from(*padding?), 1),
        (false, _) => (0, 0),
    };
    let start = before + if frame.has(PRIORITY) { 5 } else { 0 };
    let end = payload.len().checked_sub(padding)?;
    (start <= end).then_some(start..end)
}

fn gather(octets: &[u8], fragments: &[Range<usize>]) -> Vec<u8> {
    let parts = fragments.iter().filter_map(|fragment| octets.get(fragment.clone()));
    parts.flatten().copied().collect()
}

fn scatter(block: &[u8], octets: &mut [u8], fragments: &[Range<usize>]) {
    let mut rest = block;
    for fragment in fragments {
        if let Some(place) = octets.get_mut(fragment.clone())
            && let Some((part, tail)) = rest.split_at_checked(place.len())
        {
            place.copy_from_slice(part);
            rest = tail;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const REJECTED: &[u8] = &[0x83, 0x41, 6, b'/', b'r', b'/', b'k', b'.', b's'];
    const ACCEPTED: &[u8] = &[0x83, 0x41, 6, b'-', b'r', b'-', b'k', b'.', b's'];

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let mut octets = vec![0, length[0], length[1], kind, flags, 0, 0, 0, 1];
        octets.extend_from_slice(payload);
        octets
    }

    fn request(block: &[u8]) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, block)
    }

    /// Returns a connection that begins with `frames`.
    fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        [PREFACE, SETTINGS, &frames.concat()].concat()
    }

    /// Feeds `octets` in pieces of these sizes, in a cycle, and returns what comes out.
    fn through(octets: &[u8], sizes: &[usize]) -> Vec<u8> {
        let (mut frames, mut out, mut rest) = (Frames::default(), Vec::new(), octets);
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                frames.end();
            }
            let (piece, tail) = rest.split_at(rest.len().min(*size));
            frames.push(piece);
            rest = tail;
            loop {
                let given = frames.pull(*size);
                if given.is_empty() {
                    break;
                }
                out.extend_from_slice(&given);
            }
            if out.len() == octets.len() {
                return out;
            }
        }
        unreachable!("there is always a size")
    }

    fn requests(block: &[u8]) -> Vec<Vec<u8>> {
        let (head, tail) = block.split_at(5);
        let padded = [&[3, 0, 0, 0, 0, 16][..], block, &[0; 3]].concat();
        vec![
            request(block),
            frame(0, 1, b"%2F is data"),
            [frame(HEADERS, 0, head), frame(CONTINUATION, END_HEADERS, tail)].concat(),
            frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &padded),
        ]
    }

    #[test]
    fn rewrites_every_request_of_a_connection_that_needs_it() {
        let (rejected, accepted) =
            (connection(&requests(REJECTED)), connection(&requests(ACCEPTED)));
        for size in [1, 7, 4_096] {
            assert_eq!(through(&rejected, &[size]), accepted, "in pieces of {size}");
        }
    }

    #[test]
    fn stops_parsing_after_a_first_request_that_needs_no_change() {
        let first = request(&[0x41, 9, b'l', b'o', b'c', b'a', b'l', b'h', b'o', b's', b't']);
        let octets = connection(&[first, request(REJECTED)]);
        let mut frames = Frames::default();
        frames.push(&octets);
        assert_eq!(frames.pull(usize::MAX), octets);
        assert!(frames.is_done());
    }

    #[test]
    fn hands_on_all_bytes_before_a_request_at_once() {
        // A client waits for the settings of the server before it sends a request.
        let mut frames = Frames::default();
        frames.push(&connection(&[vec![0, 0, 2]]));
        assert_eq!(frames.pull(usize::MAX).len(), PREFACE.len() + SETTINGS.len());
    }

    #[test]
    fn leaves_what_is_not_a_request() {
        let continued = [frame(HEADERS, 0, REJECTED), frame(CONTINUATION, 0, b"")].concat();
        let endless = [&continued[..], &frame(CONTINUATION, 0, b"").repeat(FRAMES_MAX)].concat();
        for (what, octets) in [
            ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
            ("something in between", connection(&[[continued, request(REJECTED)].concat()])),
            ("too many frames", connection(&[endless, request(REJECTED)])),
            ("a block too large", connection(&[request(&[0x41; BLOCK_MAX])])),
            ("padding too large", connection(&[frame(HEADERS, END_HEADERS | PADDED, b"/x")])),
            ("priority cut off", connection(&[frame(HEADERS, END_HEADERS | PRIORITY, b"/x")])),
            ("cut off", connection(&[request(REJECTED)])[..50].to_vec()),
        ] {
            assert_eq!(through(&octets, &[11]), octets, "{what}");
        }
    }

    proptest! {
        #[test]
        fn never_changes_the_number_of_bytes_however_they_are_cut(
            hostile in prop::collection::vec(any::<u8>(), 0..200),
            kinds in prop::collection::vec((0..11_u8, any::<u8>(), 0..40_usize), 0..6),
            sizes in prop::collection::vec(1..50_usize, 1..5),
        ) {
            let frames = kinds.iter().map(|(kind, flags, length)| {
                frame(*kind, *flags, hostile.get(..*length).unwrap_or(&hostile))
            });
            let frames: Vec<_> = [request(REJECTED)].into_iter().chain(frames).collect();
            let octets = [connection(&frames), hostile].concat();
            let whole = through(&octets, &[usize::MAX]);
            prop_assert_eq!(whole.len(), octets.len());
            prop_assert_eq!(&through(&octets, &sizes), &whole);
            prop_assert_eq!(&through(&whole, &sizes), &whole, "a second pass changes nothing");
        }
    }
}
