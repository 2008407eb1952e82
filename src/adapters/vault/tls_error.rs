//! Explains errors of the TLS library to an operator: a cause and one remedy for each error value.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use rustls_pki_types::{ServerName, UnixTime};

use super::{client_pair::Presented, verifier::Rejection};
use crate::{adapters::rfc3339, domain::time};

/// The largest number of a certificate's names in one message.
const NAMES_MAX: usize = 4;

const CHECK_THE_PATH: &str =
    "check the address and port in --vault-address, and proxies and balancers on the way to it";

/// A cause and its remedy.
pub(super) type Explained = (String, String);

fn explained(cause: impl Into<String>, remedy: impl Into<String>) -> Explained {
    (cause.into(), remedy.into())
}

/// Returns the cause of `error` and its remedy. The cause continues the sentence "cannot connect to
/// ADDRESS: ". `presented` is the client certificate of the connection, if one is configured.
pub(super) fn explain(error: &Error, presented: Option<Presented>) -> Explained {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => match presented {
            Some(presented) => of_pair(*alert, presented).unwrap_or_else(|| alerted(*alert)),
            None => alerted(*alert),
        },
        Error::PeerIncompatible(lacks) => explained(
            match lacks {
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => {
                    "the server offers neither TLS 1.2 nor TLS 1.3"
                }
                PeerIncompatible::NoSignatureSchemesInCommon => {
                    "the key of the server's certificate fits no safe signature algorithm of TLS"
                }
                PeerIncompatible::ExtendedMasterSecretExtensionRequired => {
                    "the server's TLS 1.2 lacks the extended master secret (RFC 7627)"
                }
                _ => "the server offers no cipher or key exchange that is safe",
            },
            "allow TLS 1.3, or TLS 1.2 with ECDHE and AES-GCM, on the server",
        ),
        Error::InvalidMessage(_) => explained(
            "the server at this port does not speak TLS",
            "write http:// in --vault-address if that port has no TLS, or give the port that has TLS",
        ),
        Error::NoCertificatesPresented => {
            explained("the server sent no certificate", "give the server a certificate for TLS")
        }
        Error::DecryptError | Error::PeerSentOversizedRecord => {
            explained("the data of the server was changed or cut on the way", CHECK_THE_PATH)
        }
        Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::UnsupportedNameType
        | Error::NoApplicationProtocol => {
            explained("the server violated the TLS protocol", CHECK_THE_PATH)
        }
        Error::FailedToGetCurrentTime => {
            explained("this node's clock cannot be read", "set this node's clock")
        }
        _ => explained("TLS failed for an unknown reason", CHECK_THE_PATH),
    }
}

/// Returns the cause and the remedy for a server that accepted no hybrid key exchange.
pub(super) fn no_hybrid_group() -> Explained {
    explained(
        "the server accepted no TLS 1.3 with a hybrid post-quantum key exchange, which \
                 --tls-require-pq demands",
        "allow TLS 1.3 with the group X25519MLKEM768 on the server and on proxies that end TLS before \
                 it (Go 1.24 and OpenSSL 3.5 and later offer it), or remove --tls-require-pq",
    )
}

fn certificate(error: &CertificateError) -> Explained {
    match error {
        CertificateError::Expired => expired(""),
        CertificateError::ExpiredContext { time, not_after } => {
            expired(&format!(" on {}; this node's clock says {}", date(*not_after), date(*time)))
        }
        CertificateError::NotValidYet => not_yet("yet"),
        CertificateError::NotValidYetContext { time, not_before } => not_yet(&format!(
            "before {}; this node's clock says {}",
            date(*not_before),
            date(*time)
        )),
        CertificateError::NotValidForName => names(None, &[]),
        CertificateError::NotValidForNameContext { expected, presented } => {
            names(Some(expected), presented)
        }
        CertificateError::BadSignature => explained(
            "the server's certificate was not signed by the key of the trusted authority of that name",
            "put the authority's current certificate into --tls-ca-file",
        ),
        CertificateError::UnknownIssuer => untrusted("the known authorities", false, false),
        CertificateError::Revoked => {
            explained("the server's certificate is revoked", "give the server a new certificate")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            explained(
                "the server's certificate is not for servers (extended key usage)",
                "issue the server's certificate with the extended key usage serverAuth",
            )
        }
        CertificateError::BadEncoding => explained(
            "the server's certificate cannot be read",
            "issue the server's certificate again, as X.509 version 3",
        ),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            weak_signature()
        }
        #[expect(deprecated, reason = "the library still gives it")]
        CertificateError::UnsupportedSignatureAlgorithm => weak_signature(),
        CertificateError::UnhandledCriticalExtension => explained(
            "the server's certificate has an unknown critical extension",
            "issue the server's certificate without that extension",
        ),
        CertificateError::Other(other) => match other.0.downcast_ref::<Rejection>() {
            Some(rejection) => rejected(rejection),
            None => other.0.downcast_ref().map_or_else(unknown, path),
        },
        _ => unknown(),
    }
}

fn unknown() -> Explained {
    explained(
        "the server's certificate is rejected for an unknown reason",
        "issue the server's certificate again, for servers and with a subject alternative name",
    )
}

fn weak_signature() -> Explained {
    explained(
        "a certificate of the server is signed with an unsafe algorithm, such as SHA-1, or an unknown one",
        "issue the server's certificate, and the intermediate certificates, again with SHA-256",
    )
}

fn expired(when: &str) -> Explained {
    explained(
        format!("a certificate of the server expired{when}"),
        "renew the server's certificate; if it has not expired, correct this node's clock, \
                 which is ahead",
    )
}

fn not_yet(until: &str) -> Explained {
    explained(
        format!("a certificate of the server is not valid {until}"),
        "correct this node's clock, which is behind; if the clock is right, wait, or issue the \
                 certificate again",
    )
}

fn names(expected: Option<&ServerName<'static>>, presented: &[String]) -> Explained {
    let expected = expected.map_or_else(|| "its address".into(), ServerName::to_str);
    let known: Vec<_> = presented.iter().filter_map(|name| plain_name(name)).collect();
    if known.is_empty() {
        return explained(
            format!(
                "the server's certificate has no subject alternative name for {expected}, nor any other"
            ),
            format!(
                "issue it again with {expected} as subject alternative name; a common name does \
                                 not count"
            ),
        );
    }
    let shown = known.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = if known.len() > NAMES_MAX { ", ..." } else { "" };
    explained(
        format!("the server's certificate is not for {expected} but for {shown}{more}"),
        "give one of these names in --vault-address or with --tls-sni, or issue the certificate \
         for the address",
    )
}

/// Returns the name in the library's text for a name, such as `DnsName("a.example")`. Returns
/// `None` for a text that can contain anything else than a name.
fn plain_name(text: &str) -> Option<&str> {
    let name = text
        .strip_prefix("DnsName(\"")
        .and_then(|rest| rest.strip_suffix("\")"))
        .or_else(|| text.strip_prefix("IpAddress(").and_then(|rest| rest.strip_suffix(')')))?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:*".contains(&b);
    (name.len() <= 255 && name.bytes().all(is_plain)).then_some(name)
}

fn rejected(rejection: &Rejection) -> Explained {
    match rejection {
        Rejection::NoAuthorities(why) => explained(
            format!("the authorities to trust are not known: {why}"),
            "write the PEM bundle of CA certificates to a regular file there; it is read as soon \
                         as it exists",
        ),
        Rejection::NoClientCertificate { why, remedy } => {
            explained(format!("the client certificate is not known: {why}"), *remedy)
        }
        Rejection::UnknownIssuer { by, is_self_signed, is_alone } => {
            untrusted(by, *is_self_signed, *is_alone)
        }
    }
}

fn untrusted(by: &str, is_self_signed: bool, is_alone: bool) -> Explained {
    if is_self_signed {
        return explained(
            format!("the server's certificate is self-signed and not among {by}"),
            "put that certificate into --tls-ca-file",
        );
    }
    if is_alone {
        return explained(
            format!(
                "the server's certificate is not signed by one of {by}, and the server sent no other"
            ),
            "have the server send the intermediate certificates too, or put the CA that signed it \
             into --tls-ca-file",
        );
    }
    explained(
        format!("the certificates that the server sent do not lead to one of {by}"),
        "put the CA that signed the last of them into --tls-ca-file",
    )
}

/// Explains an error of the path validation for which the TLS library has no value of its own.
fn path(error: &webpki::Error) -> Explained {
    match error {
        webpki::Error::CaUsedAsEndEntity => explained(
            "the server's certificate is that of an authority (CA:TRUE), which must not be used by a server",
            "issue the server a certificate with CA:FALSE: openssl req -x509 needs -addext \
             basicConstraints=critical,CA:FALSE",
        ),
        webpki::Error::EndEntityUsedAsCa => explained(
            "a certificate that signed another one is not that of an authority (CA:TRUE is missing)",
            "issue the intermediate certificate again with CA:TRUE",
        ),
        webpki::Error::UnsupportedCertVersion => explained(
            "the server's certificate is not X.509 version 3",
            "issue it again with extensions: a subject alternative name makes it version 3",
        ),
        webpki::Error::NameConstraintViolation => explained(
            "the authority must not issue certificates for a name in the server's certificate",
            "issue the certificate with an authority whose name constraints allow that name",
        ),
        webpki::Error::PathLenConstraintViolated => explained(
            "the chain has more intermediate authorities than the root authority allows",
            "issue the server's certificate with an authority closer to the root",
        ),
        webpki::Error::UnsupportedCriticalExtension => {
            certificate(&CertificateError::UnhandledCriticalExtension)
        }
        _ => unknown(),
    }
}

fn alerted(alert: AlertDescription) -> Explained {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => explained(
            "the server wants a client certificate, and this client has none",
            "give --tls-client-cert-file, or set tls_require_and_verify_client_cert = false on the \
             listener",
        ),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => explained(
            format!(
                "the server does not accept this client's certificate (alert {}), and no client \
                 certificate was sent",
                u8::from(alert)
            ),
            "give --tls-client-cert-file if the listener has tls_require_and_verify_client_cert = \
             true; if not, a proxy in between does not accept the keeper's own certificate: see \
             the log of the proxy",
        ),
        AlertDescription::HandshakeFailure
        | AlertDescription::ProtocolVersion
        | AlertDescription::InsufficientSecurity => explained(
            "the server found no TLS version or cipher in common",
            "allow TLS 1.3, or TLS 1.2 with ECDHE and AES-GCM, on the server; if it does, it may \
             want a client certificate: give --tls-client-cert-file",
        ),
        AlertDescription::UnrecognisedName => explained(
            "the server has no site with the requested name",
            "give a name of the server with --tls-sni",
        ),
        alert => explained(
            format!("the server ended TLS with alert {}", u8::from(alert)),
            "see the server's log for the reason (RFC 8446, section 6, names the alerts)",
        ),
    }
}

/// Explains an alert about the client certificate `presented`. Returns `None` for another alert.
fn of_pair(alert: AlertDescription, presented: Presented) -> Option<Explained> {
    let Presented { name, end } = presented;
    Some(match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => explained(
            format!(
                "the server wants a client certificate and does not accept the signature \
                 algorithms of {name}"
            ),
            "use a key that the server accepts: ECDSA P-256 or RSA of 2048 bits",
        ),
        AlertDescription::UnknownCA => explained(
            format!("the server does not know the authority that signed {name} (alert 48)"),
            "add that authority to the file of the listener's tls_client_ca_file, or append the \
             intermediate certificates to the file of --tls-client-cert-file",
        ),
        AlertDescription::CertificateExpired => explained(
            match end {
                Some(end) => format!(
                    "the server says that {name}, which is valid until {}, has expired or is not \
                     valid yet (alert 45)",
                    rfc3339::seconds(end)
                ),
                None => format!("the server says that {name} has expired (alert 45)"),
            },
            "write a new certificate and its key to the files; if it is valid, correct the clocks \
             of this node and of the server",
        ),
        AlertDescription::CertificateRevoked => explained(
            format!("the server says that {name} is revoked (alert 44)"),
            "write a new certificate and its key to the files",
        ),
        AlertDescription::AccessDenied => explained(
            format!("the server does not allow {name} (alert 49)"),
            "allow this certificate on the server, or on the proxy that ends TLS before it",
        ),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => explained(
            format!("the server does not accept {name} (alert {})", u8::from(alert)),
            "issue it with the extended key usage clientAuth, signed by an authority in the file \
             of the listener's tls_client_ca_file; the server's log has the reason",
        ),
        _ => return None,
    })
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    rfc3339::seconds(time::UnixTime::from_secs(seconds))
}

#[cfg(test)]
#[path = "tls_error_tests.rs"]
mod tests;
