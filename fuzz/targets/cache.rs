//! The file of `--approle-secret-id-cache` may hold anything: what is read of it is a secret ID of one
//! line that stands in it, and what was written is read back, for its own wrapping token alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_kube_kms::{
    adapters::vault::login::{approle::cache_text, port::CredentialDigest},
    domain::{secret::Secret, time::UnixTime},
};

fuzz_target!(|input: (u8, &str, &str, Option<i64>, &str)| {
    let (shape, token, other, end, text) = input;
    let (of, foreign) =
        (CredentialDigest::of(&secret(token)), CredentialDigest::of(&secret(other)));
    hostile(shape, of, text);
    let end = end.map(UnixTime::from_secs);
    let written = cache_text::write(of, &secret(text), end);
    let read = cache_text::read(&written, of);
    let is_one = !text.is_empty() && text.trim() == text && !text.contains(char::is_control);
    if is_one {
        let (secret_id, read_end) = read.expect("what was written");
        assert_eq!(secret_id.expose(), text);
        assert_eq!(read_end.map(UnixTime::secs), end.map(UnixTime::secs));
    }
    assert!(token == other || cache_text::read(&written, foreign).is_none());
});

/// Reads `text`, in most shapes behind the digest that it is looked for by.
fn hostile(shape: u8, of: CredentialDigest, text: &str) {
    let written = cache_text::write(of, &secret("x"), None);
    let digest = written.expose().lines().next().expect("a digest");
    let whole = match shape % 4 {
        0 => text.to_owned(),
        1 => format!("{digest}{text}"),
        2 => format!("{digest}\r\n{text}"),
        _ => format!("{digest}\n{text}"),
    };
    if let Some((secret_id, _)) = cache_text::read(&secret(&whole), of) {
        let secret_id = secret_id.expose();
        assert!(whole.starts_with(digest) && whole[digest.len()..].contains(secret_id));
        assert!(!secret_id.is_empty() && !secret_id.contains(char::is_control));
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}
