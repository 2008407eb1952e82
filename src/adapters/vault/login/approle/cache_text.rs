//! The format of the file of `--approle-secret-id-cache`. It has one line each for the digest of a
//! wrapping token, the secret ID that the token gave, and the expiry of the secret ID in seconds
//! since the epoch. The last line is missing if the expiry is not known.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    adapters::vault::login::port::CredentialDigest,
    domain::{secret::Secret, time::UnixTime},
};

/// Returns the file's text for `secret_id`. The wrapping token with the digest `of` gave it, and it
/// expires at `end`.
#[must_use]
pub fn write(of: CredentialDigest, secret_id: &Secret, end: Option<UnixTime>) -> Secret {
    let end = end.map(|end| format!("{}\n", end.secs())).unwrap_or_default();
    Secret::new(joined(&[&printed(of), "\n", secret_id.expose(), "\n", &end]))
}

/// Returns the secret ID in `text`, and when it expires. Returns `None` if another wrapping token
/// than that with the digest `of` gave it, or if [`write()`] did not write the text.
#[must_use]
pub fn read(text: &Secret, of: CredentialDigest) -> Option<(Secret, Option<UnixTime>)> {
    let mut lines = text.expose().lines();
    let (written, secret_id) = (lines.next()?, lines.next()?.trim());
    if written != printed(of) || secret_id.is_empty() || secret_id.contains(char::is_control) {
        return None;
    }
    let end = lines.next().and_then(|end| end.parse().ok()).map(UnixTime::from_secs);
    Some((Secret::new(secret_id.to_owned()), end))
}

fn printed(digest: CredentialDigest) -> String {
    STANDARD.encode(digest.bytes())
}

/// Joins the parts in a string of exactly their size: growing it would leave copies of secrets in
/// memory.
fn joined(parts: &[&str]) -> String {
    let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum());
    text.extend(parts.iter().copied());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn reads_a_written_text_for_the_same_wrapping_token_only() {
        let (of, other) =
            (CredentialDigest::of(&secret("one")), CredentialDigest::of(&secret("two")));
        for end in [None, Some(UnixTime::from_secs(1_800_000_000))] {
            let text = write(of, &secret("id"), end);
            let (secret_id, read_end) = read(&text, of).unwrap();
            assert_eq!((secret_id.expose(), read_end), ("id", end));
            assert!(read(&text, other).is_none());
        }
    }

    /// A login with such a text would be refused, and would count towards the lock of the role.
    #[test]
    fn rejects_a_text_that_was_cut_or_changed() {
        let of = CredentialDigest::of(&secret("one"));
        let whole = write(of, &secret("id"), None);
        let digest = whole.expose().lines().next().unwrap();
        for rest in ["", "\n", "\n\n", "\n \n1", "\ni\u{0}d\n"] {
            assert!(read(&secret(&format!("{digest}{rest}")), of).is_none(), "{rest:?}");
        }
    }
}
