//! Types for secrets: they are never printed, and they are zeroed in memory when they are dropped.

use std::{fmt, sync::Arc};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The keeper's identifier of one request, as in the keeper's own audit log. Not secret.
pub type RequestId = Arc<str>;

/// Secret bytes, such as a DEK seed in clear or the content of a credential file.
///
/// They are zeroed when dropped, redacted in `Debug` and compared in constant time. The value may
/// carry the identifier of the request that returned the bytes.
#[derive(Clone)]
pub struct Plaintext {
    bytes: Zeroizing<Vec<u8>>,
    request_id: Option<RequestId>,
}

impl Plaintext {
    /// Takes over `bytes` without a copy. The buffer is zeroed when this value is dropped.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Zeroizing::new(bytes), request_id: None }
    }

    /// Sets the keeper's identifier of the request that returned the bytes.
    #[must_use]
    pub fn with_request_id(self, request_id: Option<RequestId>) -> Self {
        Self { request_id, ..self }
    }

    /// Returns the keeper's identifier of the request that returned the bytes, or `None` when it is
    /// unknown.
    #[must_use]
    pub const fn request_id(&self) -> Option<&RequestId> {
        self.request_id.as_ref()
    }

    /// Returns the bytes in clear.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns whether the length is 0.
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

/// A token, a secret ID or another credential in text form. It is zeroed when dropped, redacted in
/// `Debug` and compared in constant time.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over `text` without a copy.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Returns the secret in clear.
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
    fn compares_by_content() {
        assert_eq!(Plaintext::new(vec![1, 2]), Plaintext::new(vec![1, 2]));
        assert_ne!(Plaintext::new(vec![1, 2]), Plaintext::new(vec![1, 3]));
        assert_ne!(Plaintext::new(vec![1, 2]), Plaintext::new(vec![1, 2, 0]));
    }
}
