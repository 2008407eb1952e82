//! Explains why a connection to etcd failed: a cause and a true remedy.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError, Error as TlsError};

/// The longest chain of causes that is searched.
const CAUSES_MAX: usize = 16;

/// How the library of TLS begins the text of an alert. The library of HTTP/2 passes on the text
/// alone when the alert comes after the handshake, as with TLS 1.3.
const ALERT: &str = "received fatal alert: ";

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
        let text = io.to_string();
        if let Some(alert) = text.strip_prefix(ALERT) {
            let is_of_version = matches!(alert, "ProtocolVersion" | "HandshakeFailure");
            return of_alert(is_of_version, has_identity);
        }
        if let Some(explained) = of_io(io, &text) {
            return explained;
        }
    }
    // The connection was there, and was closed.
    if !is_https {
        return explained(
            "the connection ended without an answer in HTTP/2",
            "write https:// if that port has TLS, and check that it is etcd's port for clients",
        );
    }
    let (_, remedy) = of_alert(false, has_identity);
    let cause = if has_identity {
        "it closed the connection, as etcd does when it refuses the client certificate"
    } else {
        "it closed the connection, as etcd does when it demands a client certificate"
    };
    (cause.to_owned(), remedy)
}

fn explained(cause: &str, remedy: &str) -> (String, String) {
    (cause.to_owned(), remedy.to_owned())
}

fn of_io(error: &io::Error, text: &str) -> Option<(String, String)> {
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
        io::ErrorKind::UnexpectedEof if text.contains("handshake") => (
            "it closed the connection when TLS began",
            "write http:// if etcd has no TLS at that port; otherwise look into its log",
        ),
        _ if text.contains("failed to lookup address") => {
            ("its name does not resolve", "correct the name, or give an address")
        }
        _ => return None,
    };
    Some(explained(cause, remedy))
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
        TlsError::AlertReceived(alert) => {
            let is_of_version = matches!(
                alert,
                AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure
            );
            return of_alert(is_of_version, has_identity);
        }
        _ => (
            "TLS failed".to_owned(),
            "check the versions of TLS that etcd offers: 1.2 or 1.3 is needed",
        ),
    };
    (cause, remedy.to_owned())
}

/// Explains an alert of the server: about versions and ciphers, or about the client certificate.
fn of_alert(is_of_version: bool, has_identity: bool) -> (String, String) {
    if is_of_version {
        return explained(
            "it offers no version or cipher of TLS that is safe",
            "allow TLS 1.2 with ECDHE and AES-GCM, or TLS 1.3, at etcd",
        );
    }
    if has_identity {
        return explained(
            "it refuses the client certificate",
            "give a certificate of the authority that etcd trusts for clients, valid now (with \
             kubeadm /etc/kubernetes/pki/apiserver-etcd-client.crt and its key)",
        );
    }
    explained(
        "it demands a client certificate",
        "give --etcd-certfile and --etcd-keyfile, as the API server has them",
    )
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
        let alert = TlsError::AlertReceived(AlertDescription::CertificateRequired);
        for refused in [io::Error::other(alert.clone()), io::Error::other(alert.to_string())] {
            assert!(explain(&refused, true, false).0.contains("demands a client certificate"));
            assert!(explain(&refused, true, true).0.contains("refuses the client certificate"));
        }
    }

    #[test]
    fn says_which_scheme_to_write() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(explain(&closed, false, false).1.contains("https://"));
        let eof = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
        assert!(explain(&eof, true, false).1.contains("http://"));
        let plain = TlsError::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert!(explain(&plain, true, false).1.contains("http://"));
    }
}
