//! A Status call in plain HTTP/2 frames (RFC 9113), for an authority that no Rust library sends.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};
use vault_kube_kms::adapters::grpc::address::SocketAddress;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// The flags of frames.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// The largest frame that is read, and the most frames: HTTP/2 starts with the first limit.
const FRAME_MAX: usize = 16 << 10;
const FRAMES_MAX: usize = 64;

/// The bytes before a message of gRPC.
const MESSAGE_PREFIX: usize = 5;

/// Returns the authority that grpc-go sends for `address` by default: the path with `/` as `%2F`, or
/// the abstract name with `@`.
pub(super) fn old_authority(address: &SocketAddress) -> String {
    match address {
        SocketAddress::File(path) => {
            let bytes = path.as_os_str().as_encoded_bytes();
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
            bytes
                .iter()
                .map(|byte| {
                    if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }
                })
                .collect()
        }
        SocketAddress::Abstract(name) => format!("@{name}"),
    }
}

/// Calls Status on stream 1. Returns what came instead of an answer with a message.
pub(super) async fn call_status(
    stream: &mut UnixStream,
    authority: &str,
) -> io::Result<Result<(), String>> {
    let mut request = PREFACE.to_vec();
    request.extend(frame(SETTINGS, 0, 0, &[]));
    request.extend(frame(HEADERS, END_HEADERS, 1, &headers(authority)));
    request.extend(frame(DATA, END_STREAM, 1, &[0; MESSAGE_PREFIX]));
    stream.write_all(&request).await?;
    for _ in 0..FRAMES_MAX {
        let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
        // The first byte of what follows the length of three bytes is the type.
        let (length, kind) = (length >> 8, u8::try_from(length & 0xff).unwrap_or_default());
        let flags = stream.read_u8().await?;
        let number = stream.read_u32().await?;
        if length > FRAME_MAX {
            return Ok(Err(format!("a frame of {length} bytes")));
        }
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        match (kind, number) {
            (SETTINGS, _) if flags & ACK == 0 => {
                stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?;
            }
            (DATA, 1) if length > MESSAGE_PREFIX => return Ok(Ok(())),
            (HEADERS, 1) if flags & END_STREAM != 0 => {
                return Ok(Err("an error without a message".into()));
            }
            (RST_STREAM, 1) => {
                let code = payload.last_chunk().map_or(0, |code| u32::from_be_bytes(*code));
                return Ok(Err(format!("the stream was reset with the HTTP/2 error {code}")));
            }
            (GOAWAY, _) => return Ok(Err("the connection was ended by GOAWAY".into())),
            _ => {}
        }
    }
    Ok(Err("too many frames without an answer".into()))
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns the headers of a Status call in HPACK (RFC 7541), as literals without Huffman codes.
fn headers(authority: &str) -> Vec<u8> {
    // Entries 3 and 6 of the static table are `:method: POST` and `:scheme: http`. Its names 4, 1 and
    // 31 are `:path`, `:authority` and `content-type`.
    let mut block = vec![0x83, 0x86, 4];
    push(&mut block, "/v2.KeyManagementService/Status");
    block.push(1);
    push(&mut block, authority);
    block.extend([0x0f, 31 - 0x0f]);
    push(&mut block, "application/grpc");
    block.push(0);
    push(&mut block, "te");
    push(&mut block, "trailers");
    block
}

/// Appends a string: its length as an integer with a prefix of 7 bits, and its bytes.
fn push(block: &mut Vec<u8>, text: &str) {
    const PREFIX: usize = 0x7f;
    match u8::try_from(text.len()) {
        Ok(short) if text.len() < PREFIX => block.push(short),
        _ => {
            block.push(0x7f);
            let mut rest = text.len().saturating_sub(PREFIX);
            while rest >= 0x80 {
                block.push(u8::try_from(rest & 0x7f).unwrap_or_default() | 0x80);
                rest >>= 7;
            }
            block.push(u8::try_from(rest).unwrap_or_default());
        }
    }
    block.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_an_authority_as_in_go() {
        for (address, authority) in [
            ("unix:///run/k/kms.sock", "%2Frun%2Fk%2Fkms.sock"),
            ("unix:///@kms.sock", "@kms.sock"),
        ] {
            assert_eq!(old_authority(&SocketAddress::parse(address).unwrap()), authority);
        }
    }

    #[test]
    fn a_long_string_has_a_length_of_several_bytes() {
        for (length, prefix) in [(126, vec![126]), (127, vec![127, 0]), (300, vec![127, 0xad, 1])] {
            let mut block = Vec::new();
            push(&mut block, &"a".repeat(length));
            assert_eq!(block.len(), prefix.len() + length);
            assert_eq!(block[..prefix.len()], prefix);
        }
    }
}
