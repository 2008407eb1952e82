//! Explains why a connection to etcd failed: a cause and a true remedy.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError, Error as TlsError};

/// The longest chain of causes that is searched.
const CAUSES_MAX: usize = 16;

/// Returns the cause of a failed connection and its remedy. `is_https` says whether the URL has
/// `https://`, and `has_identity` whether there is a client certificate.
pub(super) fn explain(
    error: &(dyn Error + 'static),
    is_https: bool,
    has_identity: bool,
) -> (String, String) {
    if let Some(tls) = find::<TlsError>(error) {
        return of_tls(tls, has_identity);
    }
    if let Some(io) = find::<io::Error>(error) {
        // An error of TLS after the handshake is inside an error of I/O.
        if let Some(tls) = io.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
            return of_tls(tls, has_identity);
        }
        if let Some(explained) = of_io(io, is_https) {
            return explained;
        }
    }
    let cause = "the connection ended without an answer in HTTP/2".to_owned();
    let remedy = if is_https {
        "check that the port is etcd's port for clients, and proxies on the way to it"
    } else {
        "write https:// if that port has TLS, and check that it is etcd's port for clients"
    };
    (cause, remedy.to_owned())
}

fn of_io(error: &io::Error, is_https: bool) -> Option<(String, String)> {
    let (cause, remedy) = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            ("nothing listens there", "start that etcd, or correct its URL in --etcd-servers")
        }
        io::ErrorKind::TimedOut => (
            "no connection in 5 s",
            "check the address, firewalls, and that this machine may reach etcd",
        ),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            ("no route leads there", "check the address and the network of this machine")
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe if !is_https => (
            "the server closed the connection",
            "write https:// if that port has TLS; otherwise look into the log of etcd",
        ),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => (
            "the server closed the connection",
            "write http:// if etcd has no TLS at that port; otherwise look into its log",
        ),
        _ if error.to_string().contains("failed to lookup address") => {
            ("its name does not resolve", "correct the name, or give an address")
        }
        _ => return None,
    };
    Some((cause.to_owned(), remedy.to_owned()))
}

fn of_tls(error: &TlsError, has_identity: bool) -> (String, String) {
    let (cause, remedy) = match error {
        TlsError::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => (
            "its certificate is not from an authority in the file of --etcd-cafile".to_owned(),
            "give the authority of etcd (with kubeadm /etc/kubernetes/pki/etcd/ca.crt, not \
             /etc/kubernetes/pki/ca.crt)",
        ),
        TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => (
            "its certificate is not for this address".to_owned(),
            "give an address that the certificate has as subject alternative name; 127.0.0.1 and \
             localhost are usual ones",
        ),
        TlsError::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => (
            "its certificate has expired".to_owned(),
            "renew the certificate of etcd, or correct the clock of this machine",
        ),
        TlsError::InvalidCertificate(_) => (
            "its certificate is not acceptable".to_owned(),
            "issue the certificate of etcd again: X.509 version 3, for servers, with a subject \
             alternative name",
        ),
        TlsError::InvalidMessage(_) => (
            "it does not speak TLS at this port".to_owned(),
            "write http:// if etcd has no TLS there, or give its port with TLS",
        ),
        TlsError::AlertReceived(alert) => return of_alert(*alert, has_identity),
        _ => (
            "TLS failed".to_owned(),
            "check the versions of TLS that etcd offers: 1.2 or 1.3 is needed",
        ),
    };
    (cause, remedy.to_owned())
}

fn of_alert(alert: AlertDescription, has_identity: bool) -> (String, String) {
    let (cause, remedy) = match alert {
        AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => (
            "it offers no version or cipher of TLS that is safe",
            "allow TLS 1.2 with ECDHE and AES-GCM, or TLS 1.3, at etcd",
        ),
        _ if has_identity => (
            "it refuses the client certificate",
            "give a certificate of the authority that etcd trusts for clients, valid now (with \
             kubeadm /etc/kubernetes/pki/apiserver-etcd-client.crt and its key)",
        ),
        _ => (
            "it demands a client certificate",
            "give --etcd-certfile and --etcd-keyfile, as the API server has them",
        ),
    };
    (cause.to_owned(), remedy.to_owned())
}

/// Returns the first error of type `T` in the chain of causes.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    for _ in 0..CAUSES_MAX {
        let error = next?;
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        // `io::Error` shows the cause of its cause, and not its cause.
        if let Some(inside) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(found) = inside.downcast_ref::<T>()
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_error_of_tls_inside_an_error_of_io() {
        let refused =
            io::Error::other(TlsError::AlertReceived(AlertDescription::CertificateRequired));
        assert!(explain(&refused, true, false).0.contains("demands a client certificate"));
        assert!(explain(&refused, true, true).0.contains("refuses the client certificate"));
    }

    #[test]
    fn says_which_scheme_to_write() {
        let closed = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(explain(&closed, false, false).1.contains("https://"));
        let plain = TlsError::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert!(explain(&plain, true, false).1.contains("http://"));
    }
}
