//! Holds the settings of the keeper as plain values. Their constructors refuse bad input.

use std::{fmt, path::PathBuf};

/// Limits the label of a token, in bytes (`CK_TOKEN_INFO`, PKCS#11 v2.40, section 3.3).
const LABEL_MAX: usize = 32;

/// Limits the serial number of a token, in bytes (`CK_TOKEN_INFO`).
const SERIAL_MAX: usize = 16;

/// Limits the label of a key, in bytes. PKCS#11 sets no limit, but tokens do.
const KEY_LABEL_MAX: usize = 64;

/// Names the token that holds the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenName {
    /// Selects the token by its label.
    Label(String),
    /// Selects the token by its serial number.
    Serial(String),
}

impl TokenName {
    /// Reads a label of 1 to 32 bytes.
    ///
    /// # Errors
    /// Says what is wrong with `text`, for the operator.
    pub fn label(text: &str) -> Result<Self, String> {
        printable(text, LABEL_MAX).map(Self::Label)
    }

    /// Reads a serial number of 1 to 16 bytes.
    ///
    /// # Errors
    /// Says what is wrong with `text`, for the operator.
    pub fn serial(text: &str) -> Result<Self, String> {
        printable(text, SERIAL_MAX).map(Self::Serial)
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "token with the label {label:?}"),
            Self::Serial(serial) => write!(f, "token with the serial number {serial:?}"),
        }
    }
}

/// Holds the `CKA_LABEL` that all versions of the key share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLabel(String);

impl KeyLabel {
    /// Reads a label of 1 to 64 bytes.
    ///
    /// # Errors
    /// Says what is wrong with `text`, for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        printable(text, KEY_LABEL_MAX).map(Self)
    }

    /// Returns the text of the label.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Trims `text`, and checks that it has 1 to `most` bytes and no control character.
fn printable(text: &str, most: usize) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.len() > most || text.contains(char::is_control) {
        return Err(format!("{text:?} does not have 1 to {most} printable bytes"));
    }
    Ok(text.to_owned())
}

/// Names the library, the token and the key.
#[derive(Clone, Debug)]
pub struct Pkcs11Settings {
    /// The path of the library.
    pub module: PathBuf,
    /// The token that holds the key.
    pub token: TokenName,
    /// The label that all versions of the key share.
    pub key_label: KeyLabel,
    /// The path of the file that holds the user PIN.
    pub pin_file: PathBuf,
    /// The limit of sessions, which is also the limit of concurrent calls.
    pub sessions: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_names_that_a_token_has_no_room_for() {
        assert_eq!(TokenName::label(" kms "), Ok(TokenName::Label("kms".to_owned())));
        assert!(TokenName::label(&"x".repeat(32)).is_ok());
        for bad in ["", " ", "a\nb", &"x".repeat(33)] {
            assert!(TokenName::label(bad).is_err(), "{bad:?}");
        }
        assert!(TokenName::serial(&"1".repeat(17)).is_err());
        assert!(KeyLabel::parse(&"k".repeat(65)).is_err());
    }
}
