//! Header blocks (RFC 7541, section 6): where the `:authority` stands in one, and mending it there.

use std::ops::Range;

use http::uri::Authority;

use super::huffman;

/// The name of the field, and its index in HPACK's static table.
const NAME: &[u8] = b":authority";
const AUTHORITY: usize = 1;

/// The longest authority that is mended, in octets as they are sent: a socket's path of 107 bytes
/// takes at most 321 when every one of them is encoded.
const AUTHORITY_MAX: usize = 512;

/// Where a text stands in a block, and whether it is Huffman-coded.
#[derive(Clone, Debug)]
struct Text {
    octets: Range<usize>,
    coded: bool,
}

/// Makes the authority in `block` one that the HTTP/2 library takes, and says whether it did: not
/// where it is one already, or cannot be made one.
///
/// A character that a host name cannot have gives way to another whose code is as long, so that
/// neither the block nor the peer's dynamic table changes its size.
pub(super) fn mend(block: &mut [u8]) -> bool {
    try_mend(block).is_some()
}

fn try_mend(block: &mut [u8]) -> Option<()> {
    let Text { octets, coded } = authority(block)?;
    let octets = block.get_mut(octets).filter(|octets| octets.len() <= AUTHORITY_MAX)?;
    let refused = read(octets, coded).filter(|authority| !is_taken(authority))?;
    let instead: Vec<_> = refused.iter().map(|byte| instead_of(*byte)).collect::<Option<_>>()?;
    if !is_taken(&instead) {
        return None;
    }
    if coded {
        for (char, byte) in huffman::chars(octets)?.into_iter().zip(instead) {
            if char.byte != byte {
                huffman::replace(octets, char, byte);
            }
        }
    } else {
        octets.copy_from_slice(&instead);
    }
    Some(())
}

/// As the HTTP/2 library judges.
fn is_taken(authority: &[u8]) -> bool {
    Authority::try_from(authority).is_ok()
}

/// `byte`, or a character of a host name whose Huffman code has as many bits. A few have none, and
/// what is not printable is nobody's path: neither occurs in what grpc-go sends, which is encoded.
fn instead_of(byte: u8) -> Option<u8> {
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

/// The value of the first literal `:authority` in `block`, if there is one and the block can be
/// read up to there. An authority that is only named by its index in the dynamic table was mended
/// when it entered there.
fn authority(block: &[u8]) -> Option<Text> {
    let mut reading = Reading { block, at: 0 };
    loop {
        let prefix = match block.get(reading.at)? {
            // A field, or a change of the table's size: nothing but a number.
            0x80.. => {
                reading.integer(7)?;
                continue;
            }
            0x20..0x40 => {
                reading.integer(5)?;
                continue;
            }
            // A literal, to be indexed or not.
            0x40..0x80 => 6,
            0x00..0x20 => 4,
        };
        let is_authority = match reading.integer(prefix)? {
            0 => {
                let name = reading.text()?;
                let octets = block.get(name.octets)?;
                // No longer, however it is coded.
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

/// What a text says.
fn read(octets: &[u8], coded: bool) -> Option<Vec<u8>> {
    if !coded {
        return Some(octets.to_vec());
    }
    Some(huffman::chars(octets)?.iter().map(|char| char.byte).collect())
}

/// A place in a block.
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

    /// An integer (section 5.1) whose first octet holds `prefix` bits of it. None that is of use
    /// here takes more than three octets.
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

    /// A text (section 5.2).
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

    /// A literal with incremental indexing, its name the one at `index`, its value plain.
    fn literal(index: u8, value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(value.len()).unwrap();
        [&[0x40 | index, length], value].concat()
    }

    fn mended(block: &[u8]) -> Option<Vec<u8>> {
        let mut copy = block.to_vec();
        mend(&mut copy).then_some(copy)
    }

    #[test]
    fn what_api_servers_send_is_mended_to_what_the_library_takes() {
        for (refused, taken) in [
            ("%2Frun%2Fkms%2Fv.sock", "-2Frun-2Fkms-2Fv.sock"),
            ("/run/kms.sock", "-run-kms.sock"),
            ("%40kms", "-40kms"),
            ("@/run/x", "~-run-x"),
            ("unix:/run/x", "unixB-run-x"),
            ("passthrough:///x", "passthroughB---x"),
        ] {
            let block = literal(1, refused.as_bytes());
            assert_eq!(mended(&block), Some(literal(1, taken.as_bytes())), "{refused}");
        }
    }

    #[test]
    fn what_the_library_takes_or_nothing_can_mend_stays() {
        for authority in
            ["localhost", "kms.sock", "@kms", "host:80", "[::1]:80", "", "#", "/\0", "\u{e9}"]
        {
            assert_eq!(mended(&literal(1, authority.as_bytes())), None, "{authority:?}");
        }
    }

    #[test]
    fn the_authority_is_found_behind_other_fields() {
        let fields = [
            &[0x3f, 0xe1, 0x1f][..],        // a table of 4096 octets
            &[0x83, 0x86],                  // :method POST, :scheme http
            &literal(4, b"/v2.Key/Status"), // :path
            &[0x00, 1, b'x', 1, b'y'],      // not indexed, with a name of its own
            &[0x1f, 0x2f, 1, b'z'],         // never indexed, its name in the dynamic table
        ]
        .concat();
        let block = [&fields[..], &literal(1, b"/x")].concat();
        assert_eq!(mended(&block), Some([&fields[..], &literal(1, b"-x")].concat()));
        let named = [&fields[..], &[0x40, 10], b":authority", &[2], b"/x"].concat();
        assert_eq!(
            mended(&named),
            Some([&fields[..], &[0x40, 10], b":authority", &[2], b"-x"].concat())
        );
        assert_eq!(mended(&fields), None);
    }

    #[test]
    fn a_huffman_coded_value_keeps_its_octets_number() {
        // "/x" is 011000 1111001 and three ones.
        let block = [0x41, 0x82, 0b0110_0011, 0b1100_1111];
        // "-x" is 010110 1111001 and three ones.
        assert_eq!(mended(&block), Some(vec![0x41, 0x82, 0b0101_1011, 0b1100_1111]));
    }

    #[test]
    fn a_block_that_cannot_be_read_stays() {
        for block in [
            &[0x41][..],
            &[0x41, 5, b'/'],
            &[0x41, 0x7f, 0xff, 0xff, 0xff, 0x0f],
            &[0x7f, 0x80, 0x80, 0x80, 0x00],
            &[0x41, 0x81, 0x00],
            &[0x40, 0x81, 0x00, 1, b'/'],
            &[0x3f],
        ] {
            assert_eq!(mended(block), None, "{block:x?}");
        }
    }
}
