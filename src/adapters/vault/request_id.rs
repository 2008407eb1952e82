//! The id of a request in the server's audit log, which each answer has: a UUID (RFC 9562) as Vault
//! and OpenBao write it. Any other text could be a secret that the answer repeats, and is left out.

use serde::{Deserialize as _, Deserializer};

/// Reads the id of an answer. Returns `None` for another text.
///
/// # Errors
/// When the value is neither a text nor null.
pub(super) fn read<'de, D: Deserializer<'de>>(answer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(answer)?.filter(|text| is_uuid(text)))
}

fn is_uuid(text: &str) -> bool {
    let groups = text.split('-').map(str::len);
    groups.eq([8, 4, 4, 4, 12]) && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_uuid_and_nothing_else() {
        let uuid = "0c1f2a9e-74b1-d7a1-3f1c-6a5e2c9b8d70";
        for (answer, expected) in [
            (format!("{uuid:?}"), Some(uuid)),
            ("null".to_owned(), None),
            (r#""s.3ZP6bQyZ0cYxH2nN8fKq1WvT""#.to_owned(), None),
            (r#""q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=""#.to_owned(), None),
            (format!("{:?}", uuid.replace('0', "g")), None),
            (format!("{:?}", uuid.to_owned() + "-"), None),
        ] {
            let read = read(&mut serde_json::Deserializer::from_str(&answer)).unwrap();
            assert_eq!(read.as_deref(), expected, "{answer}");
        }
    }
}
