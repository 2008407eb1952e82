//! Finds the `:authority` in a header block (RFC 7541, section 6) and rewrites it in place.

use std::ops::Range;

use http::uri::Authority;

use super::huffman;

/// The name of the field, and its index in the static table of HPACK.
const NAME: &[u8] = b":authority";
const AUTHORITY: usize = 1;

/// The longest authority that is rewritten, in encoded bytes. A socket path of 107 bytes needs at
/// most 321 when each byte is percent-encoded.
const AUTHORITY_MAX: usize = 512;

/// The place of a string in a block, and whether it is Huffman-coded.
#[derive(Clone, Debug)]
struct Text {
    octets: Range<usize>,
    coded: bool,
}

/// Replaces the authority in `block` by one that the HTTP/2 library accepts. Returns whether it
/// changed the block: it does not when the authority is accepted already or cannot be made
/// acceptable.
///
/// Replaces each character that a host name cannot have by one whose code is as long, so neither
/// the block nor the dynamic table of the peer changes its size.
pub(super) fn rewrite(block: &mut [u8]) -> bool {
    try_rewrite(block).is_some()
}

fn try_rewrite(block: &mut [u8]) -> Option<()> {
    let Text { octets, coded } = authority(block)?;
    let octets = block.get_mut(octets).filter(|octets| octets.len() <= AUTHORITY_MAX)?;
    let rejected = read(octets, coded).filter(|authority| !is_accepted(authority))?;
    let substituted: Vec<_> =
        rejected.iter().map(|byte| substitute(*byte)).collect::<Option<_>>()?;
    if !is_accepted(&substituted) {
        return None;
    }
    if coded {
        for (char, byte) in huffman::chars(octets)?.into_iter().zip(substituted) {
            if char.byte != byte {
                huffman::replace(octets, char, byte);
            }
        }
    } else {
        octets.copy_from_slice(&substituted);
    }
    Some(())
}

/// Returns whether the HTTP/2 library accepts `authority`.
fn is_accepted(authority: &[u8]) -> bool {
    Authority::try_from(authority).is_ok()
}

/// Returns `byte`, or a character of a host name whose Huffman code has as many bits. Returns
/// `None` for the few bytes that have no such character, and for bytes that are not printable.
/// grpc-go sends neither, because it percent-encodes the path.
fn substitute(byte: u8) -> Option<u8> {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        return Some(byte);
    }
    match huffman::length(byte) {
        _ if !byte.is_ascii_graphic() => None,
        6 => Some(b'-'),
        7 => Some(b'B'),
        8 => Some(b'X'),
        10 => Some(b'!'),
        11 => Some(b'+'),
        13 => Some(b'~'),
        _ => None,
    }
}

/// Returns the value of the first literal `:authority` in `block`. Returns `None` when there is
/// none or the block cannot be parsed up to there. An authority that is a reference to the dynamic
/// table was rewritten when it was added to the table.
fn authority(block: &[u8]) -> Option<Text> {
    let mut reading = Reading { block, at: 0 };
    loop {
        let prefix = match block.get(reading.at)? {
            // An indexed field or a change of the table size: only a number.
            0x80.. => {
                reading.integer(7)?;
                continue;
            }
            0x20..0x40 => {
                reading.integer(5)?;
                continue;
            }
            // A literal field, with or without indexing.
            0x40..0x80 => 6,
            0x00..0x20 => 4,
        };
        let is_authority = match reading.integer(prefix)? {
            0 => {
                let name = reading.text()?;
                let octets = block.get(name.octets)?;
                // Neither the plain nor the coded name is longer.
                octets.len() <= NAME.len() && read(octets, name.coded)? == NAME
            }
            index => index == AUTHORITY,
        };
        let value = reading.text()?;
        if is_authority {
            return Some(value);
        }
    }
}

/// Decodes a string.
fn read(octets: &[u8], coded: bool) -> Option<Vec<u8>> {
    if !coded {
        return Some(octets.to_vec());
    }
    Some(huffman::chars(octets)?.iter().map(|char| char.byte).collect())
}

/// A position in a block.
struct Reading<'a> {
    block: &'a [u8],
    at: usize,
}

impl Reading<'_> {
    fn octet(&mut self) -> Option<u8> {
        let octet = self.block.get(self.at).copied()?;
        self.at += 1;
        Some(octet)
    }

    /// Reads an integer (section 5.1) whose first byte holds `prefix` bits of it. Returns `None`
    /// for an integer of more than three bytes: no useful one is longer.
    fn integer(&mut self, prefix: u32) -> Option<usize> {
        let mask = 0xff >> (8 - prefix);
        let mut value = usize::from(self.octet()? & mask);
        if value < usize::from(mask) {
            return Some(value);
        }
        for shift in [0, 7] {
            let octet = self.octet()?;
            value += usize::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Reads a string (section 5.2).
    fn text(&mut self) -> Option<Text> {
        let coded = self.block.get(self.at)? & 0x80 != 0;
        let length = self.integer(7)?;
        let octets = self.at..self.at + length;
        self.at = octets.end;
        (octets.end <= self.block.len()).then_some(Text { octets, coded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a literal with incremental indexing, with the name at `index` and a plain value.
    fn literal(index: u8, value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(value.len()).unwrap();
        [&[0x40 | index, length], value].concat()
    }

    fn rewritten(block: &[u8]) -> Option<Vec<u8>> {
        let mut copy = block.to_vec();
        rewrite(&mut copy).then_some(copy)
    }

    #[test]
    fn rewrites_what_api_servers_send() {
        for (rejected, accepted) in [
            ("%2Frun%2Fkms%2Fv.sock", "-2Frun-2Fkms-2Fv.sock"),
            ("/run/kms.sock", "-run-kms.sock"),
            ("%40kms", "-40kms"),
            ("@/run/x", "~-run-x"),
            ("unix:/run/x", "unixB-run-x"),
            ("passthrough:///x", "passthroughB---x"),
        ] {
            let block = literal(1, rejected.as_bytes());
            assert_eq!(rewritten(&block), Some(literal(1, accepted.as_bytes())), "{rejected}");
        }
    }

    #[test]
    fn leaves_an_authority_that_is_accepted_or_cannot_be_rewritten() {
        for authority in
            ["localhost", "kms.sock", "@kms", "host:80", "[::1]:80", "", "#", "/\0", "\u{e9}"]
        {
            assert_eq!(rewritten(&literal(1, authority.as_bytes())), None, "{authority:?}");
        }
    }

    #[test]
    fn finds_the_authority_after_other_fields() {
        let fields = [
            &[0x3f, 0xe1, 0x1f][..],        // a table of 4096 octets
            &[0x83, 0x86],                  // :method POST, :scheme http
            &literal(4, b"/v2.Key/Status"), // :path
            &[0x00, 1, b'x', 1, b'y'],      // not indexed, with a name of its own
            &[0x1f, 0x2f, 1, b'z'],         // never indexed, its name in the dynamic table
        ]
        .concat();
        let block = [&fields[..], &literal(1, b"/x")].concat();
        assert_eq!(rewritten(&block), Some([&fields[..], &literal(1, b"-x")].concat()));
        let named = [&fields[..], &[0x40, 10], b":authority", &[2], b"/x"].concat();
        assert_eq!(
            rewritten(&named),
            Some([&fields[..], &[0x40, 10], b":authority", &[2], b"-x"].concat())
        );
        assert_eq!(rewritten(&fields), None);
    }

    #[test]
    fn keeps_the_length_of_a_huffman_coded_value() {
        // "/x" is 011000 1111001 and three ones.
        let block = [0x41, 0x82, 0b0110_0011, 0b1100_1111];
        // "-x" is 010110 1111001 and three ones.
        assert_eq!(rewritten(&block), Some(vec![0x41, 0x82, 0b0101_1011, 0b1100_1111]));
    }

    #[test]
    fn leaves_a_malformed_block() {
        for block in [
            &[0x41][..],
            &[0x41, 5, b'/'],
            &[0x41, 0x7f, 0xff, 0xff, 0xff, 0x0f],
            &[0x7f, 0x80, 0x80, 0x80, 0x00],
            &[0x41, 0x81, 0x00],
            &[0x40, 0x81, 0x00, 1, b'/'],
            &[0x3f],
        ] {
            assert_eq!(rewritten(block), None, "{block:x?}");
        }
    }
}
