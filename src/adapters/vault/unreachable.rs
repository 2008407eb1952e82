//! Why a server was not reached, or a connection to it was lost.

use std::{error::Error, io};

use super::{
    address::VaultAddress,
    post_quantum::NoHybridGroup,
    tls_error::{self, Explained, explain},
};
use crate::domain::error::{Code, KmsError};

/// What `error` means for the operator of the address. `connecting` tells whether it came before
/// there was a connection.
pub(super) fn unreachable(
    address: &VaultAddress,
    error: &(dyn Error + 'static),
    connecting: bool,
) -> KmsError {
    let in_handshake = connecting && address.is_tls();
    let (cause, remedy) = explained(error, in_handshake);
    let what = if connecting { "cannot connect to" } else { "lost the connection to" };
    KmsError::new(Code::KeeperUnreachable, format!("{what} {address}: {cause}"), remedy)
}

/// The error that `error` was made of. The source of an I/O error is that of the error inside of
/// it, which would be left out.
pub(super) fn inner<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    let io = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    io.map(|inner| -> &(dyn Error + 'static) { inner }).or_else(|| error.source())
}

fn explained(error: &(dyn Error + 'static), in_handshake: bool) -> Explained {
    let mut root = error;
    let mut last_io = None;
    loop {
        if let Some(tls) = root.downcast_ref::<rustls::Error>() {
            return explain(tls);
        }
        if root.is::<NoHybridGroup>() {
            return tls_error::no_hybrid_group();
        }
        last_io = root.downcast_ref::<io::Error>().or(last_io);
        match inner(root) {
            Some(inner) => root = inner,
            None => break,
        }
    }
    match last_io.map(io::Error::kind) {
        Some(
            kind @ (io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe),
        ) if in_handshake => {
            let how = if kind == io::ErrorKind::UnexpectedEof { "closed" } else { "reset" };
            (
                format!("the connection was {how} in the TLS handshake"),
                "check that the port is the server's and speaks TLS; a proxy or balancer whose \
                 server is away, and a firewall, end connections like this too"
                    .to_owned(),
            )
        }
        _ => (
            root.to_string(),
            "check --vault-address, that the keeper runs, and the network to it".to_owned(),
        ),
    }
}
