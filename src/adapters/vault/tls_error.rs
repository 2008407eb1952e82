//! What an error of the TLS library means for an operator: a cause and one remedy for each, told
//! by value.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use rustls_pki_types::{ServerName, UnixTime};

use super::verifier::Rejection;
use crate::{adapters::rfc3339, domain::time};

/// The most names of a certificate that are told.
const NAMES_MAX: usize = 4;

const MIDDLE: &str = "check the address and port in --vault-address, and what stands in between";

/// A cause and its remedy.
pub(super) type Explained = (String, String);

fn told(cause: impl Into<String>, remedy: impl Into<String>) -> Explained {
    (cause.into(), remedy.into())
}

/// The cause of `error` and its remedy.
pub(super) fn explain(error: &Error) -> Explained {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => alerted(*alert),
        Error::PeerIncompatible(lacks) => told(
            match lacks {
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => {
                    "it offers neither TLS 1.2 nor TLS 1.3"
                }
                PeerIncompatible::NoSignatureSchemesInCommon => {
                    "its certificate's key fits no signature algorithm of TLS that is safe"
                }
                PeerIncompatible::ExtendedMasterSecretExtensionRequired => {
                    "its TLS 1.2 lacks the extended master secret (RFC 7627)"
                }
                _ => "it offers no cipher or key exchange that is safe",
            },
            "allow TLS 1.3, or TLS 1.2 with ECDHE and AES-GCM, on the server",
        ),
        Error::InvalidMessage(_) => told(
            "what answers there does not speak TLS",
            "write http:// in --vault-address if that port has no TLS, or give the port that has",
        ),
        Error::NoCertificatesPresented => {
            told("it sent no certificate", "give the server a certificate for TLS")
        }
        Error::DecryptError | Error::PeerSentOversizedRecord => {
            told("what arrived was changed or cut on the way", MIDDLE)
        }
        Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::UnsupportedNameType
        | Error::NoApplicationProtocol => told("it broke the rules of TLS", MIDDLE),
        Error::FailedToGetCurrentTime => {
            told("this node's clock cannot be read", "set this node's clock")
        }
        _ => told("TLS failed for a reason that is not known here", MIDDLE),
    }
}

/// The cause where the server agreed to no hybrid key exchange, and its remedy.
pub(super) fn no_hybrid_group() -> Explained {
    told(
        "it agreed to no TLS 1.3 with a hybrid post-quantum key exchange, which --tls-require-pq \
         demands",
        "allow TLS 1.3 with the group X25519MLKEM768 on the server and on what ends TLS before it \
         (built with Go 1.24 or OpenSSL 3.5 or later they offer it), or leave --tls-require-pq out",
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
        CertificateError::BadSignature => told(
            "its certificate was not signed by the key of the authority of that name",
            "put the authority's present certificate into --tls-ca-file",
        ),
        CertificateError::UnknownIssuer => untrusted("the known authorities", false, false),
        CertificateError::Revoked => {
            told("its certificate is revoked", "give the server a new certificate")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => told(
            "its certificate is not for servers (extended key usage)",
            "issue the server's certificate with the extended key usage serverAuth",
        ),
        CertificateError::BadEncoding => told(
            "its certificate cannot be read",
            "issue the server's certificate anew, as X.509 version 3",
        ),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            weak_signature()
        }
        #[expect(deprecated, reason = "the library still gives it")]
        CertificateError::UnsupportedSignatureAlgorithm => weak_signature(),
        CertificateError::UnhandledCriticalExtension => told(
            "its certificate has a critical extension that is not known here",
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
    told(
        "its certificate is rejected for a reason that is not known here",
        "issue the server's certificate anew, for servers and with a subject alternative name",
    )
}

fn weak_signature() -> Explained {
    told(
        "a certificate is signed with an algorithm that is not safe, such as SHA-1, or not known",
        "issue the server's certificate, and those above it, anew with SHA-256",
    )
}

fn expired(when: &str) -> Explained {
    told(
        format!("a certificate of the server expired{when}"),
        "renew the server's certificate; if its end is yet to come, correct this node's clock, \
         which is ahead",
    )
}

fn not_yet(until: &str) -> Explained {
    told(
        format!("a certificate of the server is not valid {until}"),
        "correct this node's clock, which is behind; if it is right, wait, or issue the \
         certificate anew",
    )
}

fn names(expected: Option<&ServerName<'static>>, presented: &[String]) -> Explained {
    let expected = expected.map_or_else(|| "its address".into(), ServerName::to_str);
    let known: Vec<_> = presented.iter().filter_map(|name| plain_name(name)).collect();
    if known.is_empty() {
        return told(
            format!(
                "its certificate has no subject alternative name for {expected}, nor any other"
            ),
            format!(
                "issue it anew with {expected} as subject alternative name; a common name does \
                 not count"
            ),
        );
    }
    let shown = known.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = if known.len() > NAMES_MAX { ", ..." } else { "" };
    told(
        format!("its certificate is not for {expected} but for {shown}{more}"),
        "give one of these names in --vault-address or with --tls-sni, or issue the certificate \
         for the address",
    )
}

/// The name inside of the library's text for one, such as `DnsName("a.example")`.
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
        Rejection::NoAuthorities(why) => told(
            format!("the authorities to trust are not known: {why}"),
            "write the PEM bundle of CA certificates into a plain file there; it is read as soon \
             as it is there",
        ),
        Rejection::UnknownIssuer { by, is_self_signed, is_alone } => {
            untrusted(by, *is_self_signed, *is_alone)
        }
    }
}

fn untrusted(by: &str, is_self_signed: bool, is_alone: bool) -> Explained {
    if is_self_signed {
        return told(
            format!("its certificate is self-signed and not among {by}"),
            "put that certificate into --tls-ca-file",
        );
    }
    if is_alone {
        return told(
            format!("its certificate is not signed by one of {by}, and it sent no other"),
            "have the server send the intermediate certificates too, or put the CA that signed it \
             into --tls-ca-file",
        );
    }
    told(
        format!("the certificates that it sent do not lead to one of {by}"),
        "put the CA that signed the last of them into --tls-ca-file",
    )
}

/// What the search for a path to an authority says, where the TLS library has no word for it.
fn path(error: &webpki::Error) -> Explained {
    match error {
        webpki::Error::CaUsedAsEndEntity => told(
            "its certificate is that of an authority (CA:TRUE) and must not be used as a server certificate",
            "issue the server a certificate with CA:FALSE: openssl req -x509 needs -addext \
             basicConstraints=critical,CA:FALSE",
        ),
        webpki::Error::EndEntityUsedAsCa => told(
            "a certificate that signed another is not that of an authority (CA:TRUE is missing)",
            "issue the intermediate certificate anew with CA:TRUE",
        ),
        webpki::Error::UnsupportedCertVersion => told(
            "its certificate is not X.509 version 3",
            "issue it anew with extensions: a subject alternative name makes it version 3",
        ),
        webpki::Error::NameConstraintViolation => told(
            "the authority must not issue certificates for a name of its certificate",
            "have it issued by an authority whose name constraints allow that name",
        ),
        webpki::Error::PathLenConstraintViolated => told(
            "there are more authorities between than the one at the top allows",
            "issue the server's certificate by an authority nearer to the top",
        ),
        webpki::Error::UnsupportedCriticalExtension => {
            certificate(&CertificateError::UnhandledCriticalExtension)
        }
        _ => unknown(),
    }
}

fn alerted(alert: AlertDescription) -> Explained {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => told(
            "it wants a client certificate, and there is none to give",
            "set tls_require_and_verify_client_cert = false on the listener, or give the address \
             of one without it: client certificates are not supported",
        ),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => told(
            format!(
                "it does not accept this client's certificate (alert {}), and no client \
                 certificate was sent",
                u8::from(alert)
            ),
            "set tls_require_and_verify_client_cert = false on the listener: client certificates \
             are not supported; if it is not set, a proxy in between does not accept the keeper's \
             own certificate: see its log",
        ),
        AlertDescription::HandshakeFailure
        | AlertDescription::ProtocolVersion
        | AlertDescription::InsufficientSecurity => told(
            "it found no TLS version or cipher in common",
            "allow TLS 1.3, or TLS 1.2 with ECDHE and AES-GCM, on the server; if it does, see \
             whether it wants a client certificate",
        ),
        AlertDescription::UnrecognisedName => told(
            "it serves no site of the name that was asked for",
            "give a name that it serves with --tls-sni",
        ),
        alert => told(
            format!("it ended TLS with alert {}", u8::from(alert)),
            "look into the server's log for the reason (RFC 8446, section 6, names the alerts)",
        ),
    }
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    rfc3339::seconds(time::UnixTime::from_secs(seconds))
}

#[cfg(test)]
#[path = "tls_error_tests.rs"]
mod tests;
