//! Checks the text of a credential in a file or a flag. Rejects text that operators write around a
//! credential by mistake before the credential is sent. Errors name the form of the text and never
//! repeat it.

use base64::{
    Engine as _,
    alphabet::{Alphabet, STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

use super::{
    credential_file::{CredentialForm, CredentialPath},
    jwt_claims::Claims,
};
use crate::{
    domain::{
        error::{Code, KmsError},
        secret::Secret,
    },
    ports::file::TextFile,
};

/// The longest accepted credential, in bytes. Vault's generated IDs have 36 bytes, its tokens a few
/// hundred, and JWTs with many claims a few thousand.
pub const CREDENTIAL_MAX: u64 = 16_384;

/// Reads the credential `of` from its opened `file`. Removes blanks and newlines at both ends, and
/// the byte order mark that some editors write.
///
/// # Errors
/// Returns [`Code::CredentialUnreadable`] with the flag, the file, the cause and the remedy.
pub async fn read(file: &dyn TextFile, of: &CredentialPath) -> Result<Secret, KmsError> {
    let CredentialPath { flag, what, .. } = of;
    let unreadable = |why: &str, remedy: String| {
        let cause = format!("--{flag}: {} {why}", file.place());
        KmsError::new(Code::CredentialUnreadable, cause, remedy)
    };
    let bytes = file.read().await.map_err(|why| {
        let remedy = format!("write the {what} to a regular file there that this process can read");
        unreadable(&why, remedy)
    })?;
    match text(bytes.expose()).and_then(|text| credential_in(text, of.form)) {
        Ok(credential) => Ok(credential),
        Err(form) => {
            let end = if let CredentialForm::Text(end) = of.form { end } else { "" };
            Err(unreadable(
                &format!("does not hold a usable {what}: {form}"),
                format!("write the {what} alone to the file, as one line of UTF-8{end}"),
            ))
        }
    }
}

/// Returns the credential in `text`, which has this form.
fn credential_in(text: &str, form: CredentialForm) -> Result<Secret, &'static str> {
    let credential = Secret::new(match form {
        CredentialForm::TextOrJson(field) if text.starts_with('{') => field_of(text, field)?,
        _ => text.to_owned(),
    });
    check(credential.expose())?;
    if form == CredentialForm::Jwt && Claims::read(credential.expose()).is_none() {
        return Err("it is not a JWT of three parts with a JSON payload");
    }
    Ok(credential)
}

/// Returns the text in `bytes`, without the byte order mark and surrounding blanks.
fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("it is UTF-16 text");
    }
    let text = std::str::from_utf8(bytes).map_err(|_private| "it is not UTF-8 text")?;
    Ok(text.trim_start_matches('\u{feff}').trim())
}

/// Returns the text in `field` of the JSON object `text`.
fn field_of(text: &str, field: &str) -> Result<String, &'static str> {
    let object: serde_json::Value =
        serde_json::from_str(text).map_err(|_private| "it is not valid JSON")?;
    let value = object.get(field).and_then(serde_json::Value::as_str);
    value.map(str::to_owned).ok_or("it is JSON without a credential in it")
}

/// Checks that `text` can be a credential without any change.
///
/// # Errors
/// Returns what `text` is instead. The error does not contain `text`.
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
        return Err("it is in quotes");
    }
    if text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer ")) {
        return Err("it begins with the word Bearer");
    }
    if has_a_name(text) {
        return Err("it has a name in front of the value");
    }
    if text.contains(['\n', '\r']) {
        return Err("it has more than one line");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("it has blanks or other characters that are not valid in a credential");
    }
    if is_encoded(text) {
        return Err("it is the base64 of a credential");
    }
    Ok(())
}

/// Returns whether `text` is `NAME=value` or `NAME: value` with a name that is common for
/// credentials.
fn has_a_name(text: &str) -> bool {
    let text = text.strip_prefix("export ").unwrap_or(text);
    let Some((name, value)) = text.split_once(['=', ':']) else { return false };
    let mut name = name.trim().to_ascii_lowercase();
    name.retain(|c| !"_-. ".contains(c));
    !value.trim().is_empty()
        && ["secretid", "roleid", "token"].iter().any(|known| name.ends_with(known))
}

/// Returns whether `text` is the base64 of a generated ID or a token.
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
        .any(|bytes| std::str::from_utf8(&bytes).is_ok_and(|inner| is_generated(inner.trim())))
}

/// Returns whether `text` has the form of a generated ID or of a token.
fn is_generated(text: &str) -> bool {
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
        let of = CredentialPath {
            flag: "approle-secret-id-path",
            what: "secret ID",
            path: "/secret-id".into(),
            is_secret: true,
            form: CredentialForm::Text(""),
        };
        read(&file, &of).await
    }

    #[tokio::test]
    async fn reads_a_credential_without_blanks_and_byte_order_mark() {
        let custom = "a-custom/secret+ID==";
        for (text, expected) in [
            (ID.to_owned(), ID),
            (format!("{ID}\n"), ID),
            (format!("\u{feff}{ID}\r\n\r\n"), ID),
            (format!("  {ID}\t\n"), ID),
            (format!("hvs.{}", "C".repeat(90)), &format!("hvs.{}", "C".repeat(90))),
            (custom.to_owned(), custom),
            ("team=blue:7".to_owned(), "team=blue:7"),
            // The base64 text may be the secret itself.
            (PADDED.encode([7; 32]), &PADDED.encode([7; 32])),
        ] {
            assert_eq!(read_from(text.into_bytes()).await.unwrap().expose(), expected);
        }
    }

    #[test]
    fn reads_each_form() {
        let jwt = "e30.e30.c2ln";
        let json = CredentialForm::TextOrJson("token");
        for (form, text, expected) in [
            (CredentialForm::Jwt, jwt, Some(jwt)),
            (CredentialForm::Jwt, ID, None),
            (CredentialForm::Jwt, "e30.e30", None),
            (json, r#"{"token":"s.abc","ttl":300}"#, Some("s.abc")),
            (json, "s.abc", Some("s.abc")),
            (json, r#"{"ttl":300}"#, None),
            (json, r#"{"token":7}"#, None),
            (json, r#"{"token":"a b"}"#, None),
            (json, "{", None),
        ] {
            let read = credential_in(text, form).ok();
            assert_eq!(read.as_ref().map(Secret::expose), expected, "{form:?} {text}");
        }
    }

    #[tokio::test]
    async fn rejects_text_around_a_credential_without_repeating_it() {
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
