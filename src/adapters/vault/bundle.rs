//! Parses the certificate authorities of `--tls-ca-file`, in all encodings and layouts that
//! operators use. [`read`] runs at the start and each time the file changes.

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, UnixTime as TlsTime};

use super::pem::{self, Section};
use crate::domain::time::UnixTime;

/// The largest bundle, in bytes: the public authorities take about 250 KiB.
pub const BUNDLE_MAX: u64 = 4 * 1_048_576;

/// The largest number of problems that are reported for one bundle.
const PROBLEMS_MAX: usize = 4;

/// The latest possible end of a certificate: the last second of the year 9999 (RFC 5280, section
/// 4.1.2.5).
pub(super) const LAST_SECOND: u64 = 253_402_300_799;

/// The certificates of a bundle.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The authorities that can be used, at least one.
    pub(super) roots: RootCertStore,
    /// The parts of the bundle that are not used, and why: one text for each part.
    pub warnings: Vec<String>,
    /// The end of the certificate that expires first. `None` if no end is known.
    pub first_end: Option<UnixTime>,
}

/// Parses the PEM bundle in `bytes`. Accepts UTF-16, byte order marks, text around the
/// certificates, and line ends of any kind, also those written as `\n`.
///
/// # Errors
/// Returns why the bundle has no usable certificate, and the remedy. The text continues a sentence
/// that starts with the file's path.
pub fn read(bytes: &[u8]) -> Result<Bundle, String> {
    if pem::is_der(bytes) {
        return Err(format!("is {}; give a PEM bundle", binary(bytes)));
    }
    let text = pem::plain(bytes);
    let mut bundle =
        Bundle { roots: RootCertStore::empty(), warnings: Vec::new(), first_end: None };
    let mut count = 0;
    for section in pem::sections(&text) {
        let problem = match section {
            Section { label: b"CERTIFICATE" | b"X509 CERTIFICATE", body } => {
                count += 1;
                let Some(body) = body else {
                    bundle.warnings.push(format!("certificate {count} has no END line"));
                    continue;
                };
                match certificate(body).filter(|der| bundle.roots.add(der.clone()).is_ok()) {
                    Some(der) => {
                        bundle.first_end = earlier(bundle.first_end, end(&der));
                        continue;
                    }
                    None => format!("certificate {count} is not a valid X.509 certificate"),
                }
            }
            Section { label: b"TRUSTED CERTIFICATE", .. } => {
                count += 1;
                format!(
                    "certificate {count} is in OpenSSL's own TRUSTED form; convert it with \
                     openssl x509"
                )
            }
            Section { label, .. } if label.ends_with(b"PRIVATE KEY") => {
                "it holds a private key, which must not be in this file; remove it".to_owned()
            }
            Section { label: b"CERTIFICATE REQUEST" | b"NEW CERTIFICATE REQUEST", .. } => {
                "it holds a certificate request, which is not a certificate".to_owned()
            }
            Section { label: b"PKCS7" | b"CMS", .. } => {
                "it holds PKCS #7; convert it with openssl pkcs7 -print_certs".to_owned()
            }
            Section { .. } => "it holds a section that is not a certificate".to_owned(),
        };
        if !bundle.warnings.contains(&problem) {
            bundle.warnings.push(problem);
        }
    }
    let left_out = bundle.warnings.len().saturating_sub(PROBLEMS_MAX);
    bundle.warnings.truncate(PROBLEMS_MAX);
    if left_out > 0 {
        bundle.warnings.push(format!("{left_out} more parts of it cannot be used"));
    }
    if !bundle.roots.is_empty() {
        return Ok(bundle);
    }
    if bundle.warnings.is_empty() {
        return Err("holds no certificate; give a PEM bundle of CA certificates".to_owned());
    }
    let problems = bundle.warnings.join(", ");
    Err(format!("holds no certificate that can be used ({problems}); give a PEM bundle"))
}

/// Returns the certificate in the body of a section. Does not check its content.
pub(super) fn certificate(body: &[u8]) -> Option<CertificateDer<'static>> {
    let mut der = pem::decoded(body)?;
    Some(CertificateDer::from(std::mem::take(&mut *der)))
}

/// Returns what the DER in `bytes` is, and how to convert it.
fn binary(bytes: &[u8]) -> &'static str {
    if webpki::anchor_from_trusted_cert(&CertificateDer::from(bytes)).is_ok() {
        "a certificate in DER form; convert it with openssl x509 -inform der"
    } else {
        "a binary file, such as a key store"
    }
}

pub(super) fn earlier(one: Option<UnixTime>, other: Option<UnixTime>) -> Option<UnixTime> {
    [one, other].into_iter().flatten().min()
}

/// Returns the end of a certificate. Verifies the certificate at the latest possible time: the
/// library checks the time first, and its error contains the end.
pub(super) fn end(der: &CertificateDer<'_>) -> Option<UnixTime> {
    let certificate = webpki::EndEntityCert::try_from(der).ok()?;
    let late = TlsTime::since_unix_epoch(std::time::Duration::from_secs(LAST_SECOND));
    let usage = webpki::KeyUsage::server_auth();
    match certificate.verify_for_usage(&[], &[], &[], late, usage, None, None) {
        Err(webpki::Error::CertExpired { not_after, .. }) => Some(from_tls(not_after)),
        _ => None,
    }
}

/// Converts a time of the TLS library.
pub(super) fn from_tls(time: TlsTime) -> UnixTime {
    UnixTime::from_secs(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// Returns a CA certificate that ends on 1 January of `year`.
    fn authority(year: i32) -> rcgen::Certificate {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    fn count(bytes: &[u8]) -> (usize, usize) {
        let bundle = read(bytes).unwrap();
        (bundle.roots.len(), bundle.warnings.len())
    }

    #[test]
    fn reads_every_encoding_and_layout() {
        let (one, two) = (authority(2040).pem(), authority(2041).pem());
        let both = format!("{one}{two}");
        let utf16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
            format!("\u{feff}# Zertifizierungsstelle Ö\r\n{both}")
                .encode_utf16()
                .flat_map(order)
                .collect()
        };
        let latin1 = [b"# Autorit\xe9 \xff\xfe\n", both.as_bytes(), b"\xe9"].concat();
        for (layout, bytes) in [
            ("plain", both.clone().into_bytes()),
            ("byte order mark", format!("\u{feff}{both}").into_bytes()),
            ("CRLF", both.replace('\n', "\r\n").into_bytes()),
            ("CR", both.replace('\n', "\r").into_bytes()),
            ("UTF-16LE", utf16(u16::to_le_bytes)),
            ("UTF-16BE", utf16(u16::to_be_bytes)),
            ("comments of another encoding", latin1),
            ("text around", format!("Issuer: A\n{one}Subject: B\n{two}end").into_bytes()),
            ("indented", both.replace('\n', "\n    ").into_bytes()),
            ("escaped line ends", both.replace('\n', "\\n").into_bytes()),
            ("escaped CRLF", both.replace('\n', "\\r\\n").into_bytes()),
            ("one line", both.replace('\n', " ").into_bytes()),
            ("the older label", both.replace(" CERTIFICATE", " X509 CERTIFICATE").into_bytes()),
        ] {
            assert_eq!(count(&bytes), (2, 0), "{layout}");
        }
    }

    #[test]
    fn uses_the_valid_certificates_and_warns_of_the_others_by_number() {
        let one = authority(2040).pem();
        let key = KeyPair::generate().unwrap().serialize_pem();
        let cut = one.replace("-----END CERTIFICATE-----", "");
        let junk = "-----BEGIN CERTIFICATE-----\nnope\n-----END CERTIFICATE-----\n";
        let trusted = one.replace(" CERTIFICATE", " TRUSTED CERTIFICATE");
        let request = one.replace(" CERTIFICATE", " CERTIFICATE REQUEST");
        for (bundle, warning) in [
            (format!("{one}{junk}"), "certificate 2 is not a valid"),
            (format!("{junk}{one}"), "certificate 1 is not a valid"),
            (format!("{one}{junk}{one}"), "certificate 2 is not a valid"),
            (format!("{cut}{one}"), "certificate 1 has no END line"),
            (format!("{one}{cut}"), "certificate 2 has no END line"),
            (format!("{one}{trusted}"), "certificate 2 is in OpenSSL's own TRUSTED form"),
            (format!("{one}{key}"), "private key"),
            (format!("{one}{request}"), "certificate request"),
        ] {
            let read = read(bundle.as_bytes()).unwrap();
            assert!(!read.roots.is_empty());
            assert_eq!(read.warnings.len(), 1, "{:?}", read.warnings);
            assert!(read.warnings[0].contains(warning), "{warning}: {:?}", read.warnings);
        }
    }

    #[test]
    fn rejects_a_bundle_without_a_usable_certificate_and_names_the_remedy() {
        let one = authority(2040);
        let key = KeyPair::generate().unwrap();
        let junk = "-----BEGIN CERTIFICATE-----\nnope\n-----END CERTIFICATE-----\n";
        for (bytes, named) in [
            (Vec::new(), "holds no certificate"),
            (b"hello".to_vec(), "holds no certificate"),
            (junk.as_bytes().to_vec(), "certificate 1 is not a valid"),
            (one.der().to_vec(), "openssl x509 -inform der"),
            (key.serialize_der(), "binary"),
            (key.serialize_pem().into_bytes(), "private key"),
            (junk.repeat(1_000).into_bytes(), "996 more parts"),
        ] {
            let problem = read(&bytes).unwrap_err();
            assert!(problem.contains(named) && problem.contains("PEM bundle"), "{problem}");
        }
    }

    #[test]
    fn returns_the_earliest_end_of_all_certificates() {
        let bundle = [authority(2041), authority(2039), authority(2040)];
        let pem: String = bundle.iter().map(rcgen::Certificate::pem).collect();
        let expected = date_time_ymd(2039, 1, 1).unix_timestamp();
        assert_eq!(read(pem.as_bytes()).unwrap().first_end, Some(UnixTime::from_secs(expected)));
    }
}
