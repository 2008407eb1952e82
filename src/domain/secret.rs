//! What must never be printed, and must be gone from memory once it has been used.

use std::{fmt, sync::Arc};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The keeper's identifier of one request, as it stands in the keeper's own audit log. Not secret.
pub type RequestId = Arc<str>;

/// Secret bytes, such as a DEK seed in clear or the content of a credential file: zeroed when
/// dropped, redacted in `Debug`, compared in constant time. It may know by which request the keeper
/// gave it.
#[derive(Clone)]
pub struct Plaintext {
    bytes: Zeroizing<Vec<u8>>,
    request_id: Option<RequestId>,
}

impl Plaintext {
    /// Takes over `bytes`; the caller's buffer becomes this value's and is zeroed with it.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Zeroizing::new(bytes), request_id: None }
    }

    /// The same, given by the request that the keeper calls `request_id`.
    #[must_use]
    pub fn by(self, request_id: Option<RequestId>) -> Self {
        Self { request_id, ..self }
    }

    /// The keeper's identifier of the request that gave it, where that is known.
    #[must_use]
    pub const fn request_id(&self) -> Option<&RequestId> {
        self.request_id.as_ref()
    }

    /// The bytes in clear.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plaintext([REDACTED])")
    }
}

impl PartialEq for Plaintext {
    fn eq(&self, other: &Self) -> bool {
        self.bytes.ct_eq(&other.bytes).into()
    }
}

impl Eq for Plaintext {}

/// A token, secret ID or other credential in text form: zeroed when dropped, redacted in `Debug`.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over `text`.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret in clear.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([REDACTED])")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_bytes_nor_length() {
        assert_eq!(format!("{:?}", Plaintext::new(vec![65; 32])), "Plaintext([REDACTED])");
        assert_eq!(format!("{:?}", Secret::new("hvs.canary".into())), "Secret([REDACTED])");
    }

    #[test]
    fn equality_is_by_content() {
        assert_eq!(Plaintext::new(vec![1, 2]), Plaintext::new(vec![1, 2]));
        assert_ne!(Plaintext::new(vec![1, 2]), Plaintext::new(vec![1, 3]));
        assert_ne!(Plaintext::new(vec![1, 2]), Plaintext::new(vec![1, 2, 0]));
    }
}
