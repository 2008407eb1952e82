//! Finds the sections of PEM files, in all encodings and layouts that operators use. The memory of
//! copies is wiped, because a section may hold a private key.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

/// One section of a PEM file: the label after `BEGIN`, and the text up to the matching `END`.
/// `body` is `None` if the section has no matching `END`.
pub(super) struct Section<'a> {
    pub(super) label: &'a [u8],
    pub(super) body: Option<&'a [u8]>,
}

/// Returns the sections of `text`. Searches for the marks `-----` and not for lines, because
/// templates can join lines.
pub(super) fn sections(text: &[u8]) -> impl Iterator<Item = Section<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, after) = split(rest, b"-----BEGIN ")?;
        rest = after;
        let (label, after) = split(after, b"-----")?;
        rest = after;
        let Some((body, tail)) = split(after, b"-----") else {
            return Some(Section { label, body: None });
        };
        let end = tail.strip_prefix(b"END ").and_then(|tail| tail.strip_prefix(label));
        if let Some(tail) = end {
            rest = tail;
        }
        Some(Section { label, body: end.map(|_| body) })
    })
}

/// Returns the text before and the text after the first `mark`.
fn split<'a>(text: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(mark.len()).position(|window| window == mark)?;
    Some((text.get(..at)?, text.get(at + mark.len()..)?))
}

/// Returns the bytes that the base64 text of a section encodes. Returns `None` if it is not base64.
pub(super) fn decoded(body: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    // The capacity is enough, so no copy of a growing buffer stays in memory.
    let mut text = Zeroizing::new(Vec::with_capacity(body.len()));
    text.extend(body.iter().copied().filter(|b| !b.is_ascii_whitespace()));
    STANDARD.decode(&*text).ok().map(Zeroizing::new)
}

/// Returns the text without the zero bytes that UTF-16 puts between ASCII characters, and with line
/// ends instead of `\n`. This can damage text around the sections, but not the sections, which are
/// ASCII.
pub(super) fn plain(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(bytes.len()));
    text.extend(bytes.iter().copied().filter(|b| *b != 0));
    let mut rest = text.iter_mut().peekable();
    let mut escaped = false;
    while let Some(b) = rest.next() {
        let next = rest.peek().map_or(0, |next| **next);
        if escaped || (*b == b'\\' && matches!(next, b'n' | b'r')) {
            escaped = !escaped;
            *b = b'\n';
        }
    }
    text
}

/// Returns whether `bytes` begin with a DER sequence, like binary certificates and key stores.
pub(super) const fn is_der(bytes: &[u8]) -> bool {
    matches!(bytes, [0x30, 0x80..=0x84, ..])
}
