//! Reads the Huffman code of HPACK (RFC 7541, section 5.2 and appendix B) and replaces single
//! characters of an encoded string.

/// The length of the code of each byte, in bits. The code is canonical: the codes follow from their
/// lengths.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
     6, 10, 10, 12, 13,  6,  8, 11, 10, 10,  8, 11,  8,  6,  6,  6,
     5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8, 15,  6, 12, 10,
    13,  6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
     7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8, 13, 19, 13, 14,  6,
    15,  5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,
     6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// The codes of one length. They are consecutive numbers, in the order of the bytes.
#[derive(Clone, Copy)]
struct Codes {
    first: u32,
    count: u32,
}

/// The codes by their length in bits, 0 to 30.
const CODES: [Codes; 31] = by_length();

#[expect(clippy::indexing_slicing, clippy::as_conversions, reason = "evaluated when compiled")]
const fn by_length() -> [Codes; 31] {
    let mut codes = [Codes { first: 0, count: 0 }; 31];
    let mut byte = 0;
    while byte < LENGTHS.len() {
        codes[LENGTHS[byte] as usize].count += 1;
        byte += 1;
    }
    let mut length = 1;
    while length < codes.len() {
        codes[length].first = (codes[length - 1].first + codes[length - 1].count) << 1;
        length += 1;
    }
    codes
}

/// One character of an encoded string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Char {
    /// The byte that it encodes.
    pub(super) byte: u8,
    /// The position of the first bit of its code in the string.
    at: usize,
}

/// Returns the characters of `text`. Returns `None` when it is not a complete string in this code.
pub(super) fn chars(text: &[u8]) -> Option<Vec<Char>> {
    let mut chars = Vec::with_capacity(text.len());
    let (mut code, mut length, mut begun) = (0, 0, 0);
    for (at, bit) in bits(text).enumerate() {
        (code, length) = (code << 1 | u32::from(bit), length + 1);
        let codes = CODES.get(usize::from(length))?;
        let index = code.checked_sub(codes.first)?;
        if index < codes.count {
            let byte = bytes_of(length).nth(usize::try_from(index).ok()?)?;
            chars.push(Char { byte, at: begun });
            (code, length, begun) = (0, 0, at + 1);
        }
    }
    // The remaining bits pad the last byte. They must be ones.
    (length < 8 && code + 1 == 1 << length).then_some(chars)
}

/// Replaces `char` by `byte`. Does nothing when the code of `byte` has another length.
pub(super) fn replace(text: &mut [u8], char: Char, byte: u8) {
    let length = length(byte);
    let before = bytes_of(length).take_while(|other| *other != byte).count();
    let Some(codes) = CODES.get(usize::from(length)).filter(|_| length == self::length(char.byte))
    else {
        return;
    };
    let code = codes.first + u32::try_from(before).unwrap_or_default();
    for place in 0..length {
        let bit = char.at + usize::from(place);
        let mask = 0x80 >> (bit % 8);
        if let Some(octet) = text.get_mut(bit / 8) {
            let is_set = code >> (length - 1 - place) & 1 == 1;
            *octet = if is_set { *octet | mask } else { *octet & !mask };
        }
    }
}

/// Returns the length of the code of `byte`, in bits.
pub(super) fn length(byte: u8) -> u8 {
    LENGTHS.get(usize::from(byte)).copied().unwrap_or_default()
}

/// Returns the bytes whose codes have this length.
fn bytes_of(length: u8) -> impl Iterator<Item = u8> {
    (0..=u8::MAX).filter(move |byte| self::length(*byte) == length)
}

fn bits(text: &[u8]) -> impl Iterator<Item = bool> {
    text.iter().flat_map(|octet| (0..8).map(move |place| octet << place & 0x80 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(encoded: &[u8]) -> Option<String> {
        chars(encoded).map(|chars| chars.iter().map(|char| char::from(char.byte)).collect())
    }

    /// The examples of RFC 7541, appendix C.4 and C.6.
    #[test]
    fn reads_the_examples_of_the_rfc() {
        for (encoded, expected) in [
            (
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..],
                "www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f], "custom-key"),
            (
                &[
                    0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae,
                    0x82, 0xae, 0x43, 0xd3,
                ],
                "https://www.example.com",
            ),
            (&[], ""),
        ] {
            assert_eq!(text(encoded).as_deref(), Some(expected));
        }
    }

    #[test]
    fn rejects_an_incomplete_string() {
        for encoded in [
            &[0xff][..],               // a whole octet of padding
            &[0xff, 0xff, 0xff, 0xff], // the end of the string, spelled out
            &[0x00],                   // padding of zeros
            &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4], // cut off
        ] {
            assert_eq!(text(encoded), None, "{encoded:x?}");
        }
    }

    #[test]
    fn replaces_one_character_and_no_other() {
        let mut encoded = [0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
        let chars = chars(&encoded).unwrap();
        assert_eq!(chars[2].byte, b'-');
        replace(&mut encoded, chars[2], b'/');
        assert_eq!(text(&encoded).as_deref(), Some("no/cache"));
        let before = encoded;
        replace(&mut encoded, chars[2], b'a'); // shorter
        assert_eq!(encoded, before);
    }
}
