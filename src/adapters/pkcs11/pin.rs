//! Reads the user PIN from a file, and reads it again when the file changes.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    domain::{
        error::{Code, KmsError},
        secret::Plaintext,
    },
    ports::file::TextFile,
};

/// The PIN, or the reason why the file gives none.
pub(super) type Pin = Result<Plaintext, KmsError>;

/// Watches the file of the PIN.
#[derive(Debug)]
pub(super) struct PinFile {
    file: Arc<dyn TextFile>,
    last: Mutex<Option<Pin>>,
}

impl PinFile {
    /// Makes the watcher of `file`. Reads nothing yet.
    pub(super) fn new(file: Arc<dyn TextFile>) -> Self {
        Self { file, last: Mutex::default() }
    }

    /// Returns the last PIN that could be read. The first call reads the file.
    pub(super) async fn current(&self) -> Pin {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match last {
            Some(pin) => pin,
            None => self.read().await,
        }
    }

    /// Reads the file now, and again after each change. Never returns.
    pub(super) async fn watch(&self) {
        loop {
            let _kept = self.read().await;
            self.file.changed().await;
        }
    }

    async fn read(&self) -> Pin {
        let read = self.file.read().await;
        let pin = parse(read, &self.file.place());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // A file that is missing for a moment must not take away a good PIN.
        if pin.is_ok() || !matches!(*last, Some(Ok(_))) {
            *last = Some(pin.clone());
        }
        pin
    }
}

/// Returns the PIN without the newline that editors append.
fn parse(read: Result<Plaintext, String>, place: &str) -> Pin {
    let unreadable = |why: &str| {
        KmsError::new(
            Code::CredentialUnreadable,
            format!("--pkcs11-pin-file: {place} {why}"),
            "write the user PIN alone into that file, readable by this process alone",
        )
    };
    let bytes = read.map_err(|why| unreadable(&why))?;
    let text = bytes.expose();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    match text {
        [] => Err(unreadable("is empty")),
        _ if text.contains(&b'\n') => Err(unreadable("has more than one line")),
        pin => Ok(Plaintext::new(pin.to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_line_and_nothing_else() {
        let parsed = |text: &[u8]| parse(Ok(Plaintext::new(text.to_vec())), "/pin");
        for text in [&b"12 34"[..], b"12 34\n", b"12 34\r\n"] {
            assert_eq!(parsed(text).unwrap().expose(), b"12 34");
        }
        for text in [&b""[..], b"\n", b"1234\n5678\n"] {
            let error = parsed(text).unwrap_err();
            assert_eq!(error.code(), Code::CredentialUnreadable);
            assert!(!error.to_string().contains("1234"), "{error}");
        }
        assert!(parse(Err("is a directory".to_owned()), "/pin").is_err());
    }
}
