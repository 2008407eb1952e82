//! Notes on an error of a connection which client certificate was configured for it.

use std::{error::Error as StdError, fmt, io, iter::successors};

use crate::{
    adapters::vault::{servers::BoxError, unreachable::inner},
    domain::time::UnixTime,
};

/// What an error message may name of a client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters::vault) struct Presented {
    /// The name of the certificate, such as "the client certificate in FILE".
    pub(in crate::adapters::vault) name: &'static str,
    /// When the certificate expires, if that is known.
    pub(in crate::adapters::vault) end: Option<UnixTime>,
}

/// An error of a connection with a client certificate.
#[derive(Debug)]
struct Noted {
    presented: Presented,
    error: BoxError,
}

impl fmt::Display for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl StdError for Noted {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.error.as_ref())
    }
}

/// Adds to `error` which client certificate was configured, if `error` is one of TLS.
pub(in crate::adapters::vault) fn note(error: BoxError, presented: Option<Presented>) -> BoxError {
    match presented {
        Some(presented) if is_tls(error.as_ref()) => Box::new(Noted { presented, error }),
        _ => error,
    }
}

/// Does the same as [`note`] for an error of an open connection.
pub(in crate::adapters::vault) fn note_io(
    error: io::Error,
    presented: Option<Presented>,
) -> io::Error {
    match presented {
        Some(presented) if is_tls(&error) => {
            io::Error::new(error.kind(), Noted { presented, error: error.into() })
        }
        _ => error,
    }
}

/// Returns the note on `error` itself. Does not look at its causes.
pub(in crate::adapters::vault) fn noted_on(error: &(dyn StdError + 'static)) -> Option<Presented> {
    error.downcast_ref::<Noted>().map(|noted| noted.presented)
}

fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    successors(Some(error), |error| inner(*error)).any(<dyn StdError>::is::<rustls::Error>)
}
