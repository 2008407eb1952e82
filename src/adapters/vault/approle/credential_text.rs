//! What a file or a flag may hold as a credential: the credential alone. What operators put around
//! one by mistake is refused before it is sent, by its form and never with its content.

use base64::{
    Engine as _,
    alphabet::{Alphabet, STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

use crate::{
    domain::{
        error::{Code, KmsError},
        secret::Secret,
    },
    ports::file::TextFile,
};

/// Reads a credential from its file, without the newline that editors and `echo` leave at its end
/// and the byte order mark that some editors put before it.
///
/// `flag` names the file, without dashes; `what` the credential, such as `secret ID`.
///
/// # Errors
/// [`Code::CredentialUnreadable`], naming the flag, the file, the cause and the remedy.
pub async fn read(file: &dyn TextFile, flag: &str, what: &str) -> Result<Secret, KmsError> {
    let unreadable = |why: &str, remedy: String| {
        let cause = format!("--{flag}: {} {why}", file.place());
        KmsError::new(Code::CredentialUnreadable, cause, remedy)
    };
    let bytes = file.read().await.map_err(|why| {
        let remedy = format!("write the {what} into a plain file there, readable by this process");
        unreadable(&why, remedy)
    })?;
    let credential = text(bytes.expose()).and_then(|text| check(text).map(|()| text));
    match credential {
        Ok(text) => Ok(Secret::new(text.to_owned())),
        Err(form) => Err(unreadable(
            &format!("holds no {what} that can be used: {form}"),
            format!("write the {what} alone into it, as one line of UTF-8"),
        )),
    }
}

/// The text in `bytes`, without byte order mark and surrounding blanks.
fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("it is UTF-16 text");
    }
    let text = std::str::from_utf8(bytes).map_err(|_private| "it is not UTF-8 text")?;
    Ok(text.trim_start_matches('\u{feff}').trim())
}

/// Whether `text` can be a credential as it stands.
///
/// # Errors
/// What `text` is instead, in words without its content.
pub fn check(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.starts_with(['{', '[']) {
        return Err("it is JSON or a template");
    }
    if text.starts_with("${") || text.starts_with("$(") {
        return Err("it is a reference that was not replaced by its value");
    }
    let quotes = ['"', '\'', '`', '“', '”', '‘', '’'];
    if text.starts_with(quotes) || text.ends_with(quotes) {
        return Err("it stands in quotes");
    }
    if text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer ")) {
        return Err("it begins with the word Bearer");
    }
    if has_a_name(text) {
        return Err("a name stands before it");
    }
    if text.contains(['\n', '\r']) {
        return Err("it has more than one line");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("it has blanks or other characters that no credential has");
    }
    if is_encoded(text) {
        return Err("it is the base64 of a credential");
    }
    Ok(())
}

/// Whether `text` is `NAME=value` or `NAME: value`, by names that are given to credentials.
fn has_a_name(text: &str) -> bool {
    let text = text.strip_prefix("export ").unwrap_or(text);
    let Some((name, value)) = text.split_once(['=', ':']) else { return false };
    let mut name = name.trim().to_ascii_lowercase();
    name.retain(|c| !"_-. ".contains(c));
    !value.trim().is_empty()
        && ["secretid", "roleid", "token"].iter().any(|known| name.ends_with(known))
}

/// Whether `text` is base64 of what is surely a credential.
fn is_encoded(text: &str) -> bool {
    let decoded = |alphabet: &Alphabet| {
        let padding = DecodePaddingMode::Indifferent;
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(padding);
        let decoded = GeneralPurpose::new(alphabet, config).decode(text).ok()?;
        Some(Zeroizing::new(decoded))
    };
    [&STANDARD, &URL_SAFE]
        .into_iter()
        .filter_map(decoded)
        .any(|bytes| std::str::from_utf8(&bytes).is_ok_and(|inner| is_surely_one(inner.trim())))
}

/// Whether `text` has the form of a generated ID or of a token.
fn is_surely_one(text: &str) -> bool {
    let is_word =
        |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let tokens = ["hvs.", "hvb.", "hvr.", "s.", "b.", "r."];
    let token = tokens.iter().find_map(|start| text.strip_prefix(start));
    is_uuid(text) || token.is_some_and(|rest| rest.len() >= 20 && is_word(rest))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD as PADDED, URL_SAFE_NO_PAD};

    use super::*;
    use crate::{domain::secret::Plaintext, ports::file::MockTextFile};

    const ID: &str = "84896a0c-1347-aa90-a4f6-aca8b7558780";

    async fn read_from(bytes: Vec<u8>) -> Result<Secret, KmsError> {
        let mut file = MockTextFile::new();
        file.expect_place().return_const("/secret-id".to_owned());
        file.expect_read().return_once(|| Ok(Plaintext::new(bytes)));
        read(&file, "approle-secret-id-path", "secret ID").await
    }

    #[tokio::test]
    async fn a_credential_is_read_whatever_its_editor_left_around_it() {
        let custom = "a-custom/secret+ID==";
        for (text, expected) in [
            (ID.to_owned(), ID),
            (format!("{ID}\n"), ID),
            (format!("\u{feff}{ID}\r\n\r\n"), ID),
            (format!("  {ID}\t\n"), ID),
            (format!("hvs.{}", "C".repeat(90)), &format!("hvs.{}", "C".repeat(90))),
            (custom.to_owned(), custom),
            ("team=blue:7".to_owned(), "team=blue:7"),
            // Base64 of something that may be the secret itself.
            (PADDED.encode([7; 32]), &PADDED.encode([7; 32])),
        ] {
            assert_eq!(read_from(text.into_bytes()).await.unwrap().expose(), expected);
        }
    }

    #[tokio::test]
    async fn what_stands_around_a_credential_is_named_and_not_repeated() {
        let token = format!("hvs.{}", "Canary".repeat(15));
        let utf16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
            format!("\u{feff}{ID}").encode_utf16().flat_map(order).collect()
        };
        let text = |text: &str| text.as_bytes().to_vec();
        for (bytes, form) in [
            (text(""), "empty"),
            (text(" \n"), "empty"),
            (text(&format!("\"{ID}\"")), "quotes"),
            (text(&format!("'{ID}'\n")), "quotes"),
            (text(&format!("{ID}\"")), "quotes"),
            (text(&format!("“{ID}”")), "quotes"),
            (text(&format!("{{\"secret_id\":\"{ID}\"}}")), "JSON"),
            (text(&format!("[\"{ID}\"]")), "JSON"),
            (text("{{ .Data.secret_id }}"), "template"),
            (text("${SECRET_ID}"), "reference"),
            (text(&format!("Bearer {token}")), "Bearer"),
            (text(&format!("bearer {token}")), "Bearer"),
            (text(&format!("secret_id={ID}")), "a name"),
            (text(&format!("secret_id: {ID}")), "a name"),
            (text(&format!("export VAULT_SECRET_ID={ID}")), "a name"),
            (text(&format!("APPROLE-ROLE-ID={ID}")), "a name"),
            (text(&format!("X-Vault-Token: {token}")), "a name"),
            (text(&PADDED.encode(ID)), "base64"),
            (text(&URL_SAFE_NO_PAD.encode(ID)), "base64"),
            (text(&PADDED.encode(format!("{ID}\n"))), "base64"),
            (text(&PADDED.encode(&token)), "base64"),
            (text(&format!("{ID}\n{ID}\n")), "more than one line"),
            (text(&format!("{ID} {ID}")), "blanks"),
            (text(&format!("{ID}\0")), "blanks"),
            (utf16(u16::to_le_bytes), "UTF-16"),
            (utf16(u16::to_be_bytes), "UTF-16"),
            (vec![b'a', 0xff], "UTF-8"),
        ] {
            let error = read_from(bytes.clone()).await.expect_err(form);
            assert_eq!(error.code(), Code::CredentialUnreadable);
            assert!(error.cause().contains(form), "{form}: {error}");
            assert!(error.cause().contains("--approle-secret-id-path: /secret-id"), "{error}");
            assert!(error.remedy().contains("write the secret ID alone"), "{error}");
            assert!(!error.to_string().contains("84896a0c"), "{error}");
            assert!(!error.to_string().contains("Canary"), "{error}");
        }
    }
}
