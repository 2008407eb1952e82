use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PKCS_RSA_SHA256, date_time_ymd};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::*;
use crate::{adapters::vault::tls::Identity, ports::finding::Verdict};

/// Returns a test vector: a key that OpenSSL wrote, with the command in its first line.
macro_rules! vector {
    ($name:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/vectors/client_keys/",
            $name,
            ".pem"
        ))
    };
}

/// The content of a password file of the test vectors.
const PASSWORD: &[u8] = b"test-vector\n";

/// Returns a certificate for the key in `pem`, which ends on 1 January of `year`.
fn certificate_of(key: &KeyPair, year: i32) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.not_after = date_time_ymd(year, 1, 1);
    params.self_signed(key).unwrap().pem()
}

fn ec() -> KeyPair {
    KeyPair::from_pem(vector!("ec_pkcs8")).unwrap()
}

fn rsa() -> KeyPair {
    let key = key::read(&PairParts {
        certificate: b"",
        key: Some(vector!("rsa_aes256_pbkdf2").as_bytes()),
        password: Some(PASSWORD),
    });
    let key = key.unwrap_or_else(|(_, problem)| panic!("{problem}"));
    let PrivateKeyDer::Pkcs8(key) = key.der() else { panic!("the key is not PKCS #8") };
    KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_RSA_SHA256).unwrap()
}

fn read(
    certificate: &str,
    key: Option<&str>,
    password: Option<&[u8]>,
) -> Result<ClientPair, Vec<Problem>> {
    let key = key.map(str::as_bytes);
    ClientPair::read(&PairParts { certificate: certificate.as_bytes(), key, password })
}

#[test]
fn reads_every_form_of_a_key() {
    let ec = certificate_of(&ec(), 2090);
    let rsa = certificate_of(&rsa(), 2090);
    let ed25519 = KeyPair::from_pem(vector!("ed25519_pkcs8")).unwrap();
    assert_eq!(ed25519.algorithm(), &PKCS_ED25519);
    let ed25519 = certificate_of(&ed25519, 2090);
    for (form, certificate, key) in [
        ("PKCS #8", &ec, vector!("ec_pkcs8")),
        ("SEC 1 after its parameters", &ec, vector!("ec_sec1")),
        ("AES-256-CBC, PBKDF2 with SHA-256", &ec, vector!("ec_aes256_pbkdf2")),
        ("AES-128-CBC, PBKDF2 with SHA-512", &ec, vector!("ec_aes128_sha512")),
        ("scrypt", &ec, vector!("ec_scrypt")),
        ("PKCS #1", &rsa, vector!("rsa_pkcs1")),
        ("encrypted RSA", &rsa, vector!("rsa_aes256_pbkdf2")),
        ("Ed25519", &ed25519, vector!("ed25519_pkcs8")),
    ] {
        for (layout, key) in [
            ("as it is", key.to_owned()),
            ("CRLF", key.replace('\n', "\r\n")),
            ("escaped line ends", key.replace('\n', "\\n")),
        ] {
            let pair = read(certificate, Some(&key), Some(PASSWORD));
            assert!(pair.is_ok(), "{form}, {layout}: {pair:?}");
        }
        let one_file = read(&format!("{key}{certificate}"), None, Some(b"test-vector"));
        assert!(one_file.is_ok(), "{form} before its certificate: {one_file:?}");
    }
}

#[test]
fn names_the_file_the_problem_and_the_remedy() {
    use PairFile::{Certificate, Key, Password};
    let certificate = certificate_of(&ec(), 2090);
    let other = certificate_of(&KeyPair::generate().unwrap(), 2090);
    let key = vector!("ec_pkcs8");
    let cut = certificate.replace("-----END", "-----AND");
    let trusted = certificate.replace(" CERTIFICATE", " TRUSTED CERTIFICATE");
    let (certificate, junk) =
        (certificate.as_str(), "-----BEGIN CERTIFICATE-----\nnope\n-----END CERTIFICATE-----\n");
    let openssh = key.replace("PRIVATE", "OPENSSH PRIVATE");
    let not_base64 = key.replace("\nM", "\n!");
    let twice = format!("{key}{key}");
    let (none, good): (Option<&[u8]>, _) = (None, Some(PASSWORD));
    for (certificate, key, password, file, text, remedy) in [
        ("", key, none, Certificate, "holds no certificate", "give the client's certificate"),
        ("hello", key, none, Certificate, "holds no certificate", "give the client's certificate"),
        ("0\u{1}", key, none, Certificate, "holds no certificate", "give the client's certificate"),
        (&cut, key, none, Certificate, "a certificate 1 that is not valid", "issue it again"),
        (&trusted, key, none, Certificate, "TRUSTED", "openssl x509"),
        (&format!("{certificate}{junk}"), key, none, Certificate, "a certificate 2", "issue"),
        (&other, key, none, Key, "does not fit the first certificate", "replace"),
        (&format!("{other}{certificate}"), key, none, Key, "does not fit the first", "first"),
        (certificate, "", none, Key, "holds no private key", "give the client's key"),
        (certificate, &twice, none, Key, "more than one private key", "leave the key"),
        (certificate, &key.replace("-----END", "-----AND"), none, Key, "END line", ""),
        (certificate, &not_base64, none, Key, "not base64", ""),
        (certificate, &openssh, none, Key, "unknown form", "give PKCS #8"),
        (certificate, vector!("ec_secp256k1"), none, Key, "supported type", "use RSA"),
        (certificate, vector!("ec_legacy"), good, Key, "old form", "openssl pkcs8 -topk8"),
        (certificate, vector!("ec_scrypt"), none, Key, "encrypted key", "--tls-client-key-pass"),
        (certificate, vector!("ec_scrypt"), Some(b"wrong"), Password, "does not hold", "right one"),
        (certificate, vector!("ec_scrypt"), Some(b"\r\n"), Password, "is empty", "write"),
        (certificate, vector!("ec_sha1"), good, Key, "unknown encryption", "openssl pkcs8 -topk8"),
        (certificate, vector!("ec_pbes1"), good, Key, "unknown encryption", "openssl pkcs8"),
        (certificate, vector!("ec_too_many_rounds"), good, Key, "too much time", "openssl pkcs8"),
        (certificate, &scrypt_with_large_blocks(), good, Key, "too much time or memory", "openssl"),
    ] {
        let problems = read(certificate, Some(key), password).unwrap_err();
        let [(found, told)] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!(*found, file, "{told}");
        assert!(told.contains(text) && told.contains(remedy), "{text}, {remedy}: {told}");
    }
}

/// Returns the test vector of scrypt with a block size of 127 instead of 8.
fn scrypt_with_large_blocks() -> String {
    let text = pem::plain(vector!("ec_scrypt").as_bytes());
    let section = pem::sections(&text).next().unwrap();
    let mut der = pem::decoded(section.body.unwrap()).unwrap().to_vec();
    let sizes = [0x02, 0x02, 0x40, 0x00, 0x02, 0x01, 0x08, 0x02, 0x01, 0x01];
    let at = der.windows(sizes.len()).position(|part| part == sizes).unwrap();
    der[at + 6] = 127;
    let body = STANDARD.encode(der);
    format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{body}\n-----END ENCRYPTED PRIVATE KEY-----\n")
}

#[test]
fn names_the_flag_of_the_key_if_the_only_file_holds_no_key() {
    let problems = read(&certificate_of(&ec(), 2090), None, None).unwrap_err();
    assert!(problems[0].1.contains("give --tls-client-key-file"), "{problems:?}");
}

#[test]
fn reports_the_problems_of_both_files_at_once() {
    let problems = read("", Some(""), None).unwrap_err();
    let files: Vec<_> = problems.iter().map(|(file, _)| *file).collect();
    assert_eq!(files, [PairFile::Certificate, PairFile::Key]);
}

#[test]
fn converts_binary_files_by_a_named_command() {
    let der = ec().serialize_der();
    let problems =
        ClientPair::read(&PairParts { certificate: &der, key: Some(&der), password: None });
    let problems = problems.unwrap_err();
    assert!(problems[0].1.contains("openssl x509 -inform der"), "{problems:?}");
    assert!(problems[1].1.contains("openssl pkey -inform der"), "{problems:?}");
}

#[test]
fn presents_the_whole_chain_and_returns_its_first_end() {
    let (ec, above) = (ec(), KeyPair::generate().unwrap());
    let chain = format!("{}{}", certificate_of(&ec, 2090), certificate_of(&above, 2040));
    let pair = read(&chain, Some(vector!("ec_pkcs8")), None).unwrap();
    assert_eq!(pair.certified.cert.len(), 2);
    let end = UnixTime::from_secs(date_time_ymd(2040, 1, 1).unix_timestamp());
    assert_eq!(pair.end(), Some(end));
    let own = read(&certificate_of(&ec, 2090), Some(vector!("ec_pkcs8")), None).unwrap();
    assert_ne!(own, pair);
    assert_ne!(own.digest(), pair.digest());
}

#[test]
fn debug_shows_no_key() {
    let pair = read(&certificate_of(&ec(), 2090), Some(vector!("ec_pkcs8")), None).unwrap();
    let shown = format!("{:?}", Identity::Pair(pair));
    assert!(shown.len() < 200 && shown.contains("--tls-client-cert-file"), "{shown}");
}

/// Another source than files, such as the SPIFFE Workload API, has DER.
#[test]
fn takes_a_pair_in_der() {
    let key = ec();
    let der = key.serialize_der();
    let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    let own = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der.as_slice()));
    let pair = ClientPair::new(vec![certificate.der().clone()], &own, "the X.509-SVID").unwrap();
    assert_eq!(pair.presented().name, "the X.509-SVID");
}

#[test]
fn check_counts_the_days_that_are_left() {
    let pair = read(&certificate_of(&ec(), 2040), Some(vector!("ec_pkcs8")), None).unwrap();
    let end = date_time_ymd(2040, 1, 1).unix_timestamp();
    for (before, verdict, text) in [
        (14 * 86_400, Verdict::Pass, "is good for 14 days"),
        (14 * 86_400 - 1, Verdict::Warn, "expires in 13 days"),
        (1, Verdict::Warn, "expires in 0 days"),
        (0, Verdict::Fail, "has expired"),
    ] {
        let finding = pair.finding(UnixTime::from_secs(end - before), 14);
        assert_eq!(finding.verdict, verdict, "{finding}");
        assert!(finding.text.ends_with(text), "{finding}");
    }
}
