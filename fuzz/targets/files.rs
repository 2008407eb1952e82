//! Files of authorities, credentials and keys may hold anything: what is read is told in lines without
//! control characters, and a credential is never repeated in an error.
#![no_main]

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::FutureExt as _;
use libfuzzer_sys::fuzz_target;
use vault_kube_kms::{
    adapters::{
        local::file::KeyFile,
        vault::{
            bundle,
            client_pair::{ClientPair, PairParts},
            login::{
                credential_file::{CredentialForm, CredentialPath},
                credential_text,
            },
        },
    },
    domain::secret::Plaintext,
    ports::file::TextFile,
};

/// A certificate of an authority, to be changed.
const CERTIFICATE: &str = "\
    MIIBcTCCARegAwIBAgIULoGeKi8+vYipjuHroLEt2nOqebQwCgYIKoZIzj0EAwIwDTELMAkGA1UEAwwCY2EwIBcN\
    MjYxMTI1MTQzMTE5WhgPMjEyNjExMDExNDMxMTlaMA0xCzAJBgNVBAMMAmNhMFkwEwYHKoZIzj0CAQYIKoZIzj0D\
    AQcDQgAEKURb/WOCVGhQyw4b4AIBIaM9MikdLGectXqBadnQPKA2jHr74JOcvLDbjpYlGrpSjvL1hSB3psKAe33G\
    OoVRD6NTMFEwHQYDVR0OBBYEFOfa4mrq1sKJvL1q/vqkvrasieTfMB8GA1UdIwQYMBaAFOfa4mrq1sKJvL1q/vqk\
    vrasieTfMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhAI6F/pnBLmVDcHo3IMgfs/VpUr/IobLk\
    qoARrGReKpQ3AiBj3uUXSWfPPj2D0jxX6mkdy8BfDBHkzjcV9UcKqDiakQ==";

/// A file that is always there.
#[derive(Debug)]
struct File(Vec<u8>);

#[async_trait]
impl TextFile for File {
    fn place(&self) -> String {
        "/etc/file".to_owned()
    }

    async fn read(&self) -> Result<Plaintext, String> {
        Ok(Plaintext::new(self.0.clone()))
    }

    async fn changed(&self) {}
}

fuzz_target!(|input: (u8, u16, u8, &[u8])| {
    let (shape, at, change, bytes) = input;
    authorities(&match shape % 4 {
        0 => bytes.to_vec(),
        1 => [b"-----BEGIN CERTIFICATE-----\n", bytes, b"\n-----END CERTIFICATE-----\n"].concat(),
        2 => pem(&changed(at, change, bytes)),
        _ => [bytes, &pem(&changed(at, change, &[])), bytes].concat(),
    });
    client_pair(shape, &changed(at, change, &[]), bytes);
    credential(bytes);
    key_file(at, change, bytes);
});

/// The certificate with one byte changed, and some of the bytes after it replaced.
fn changed(at: u16, change: u8, bytes: &[u8]) -> Vec<u8> {
    let mut der = STANDARD.decode(CERTIFICATE).expect("a certificate");
    let at = usize::from(at) % der.len();
    der[at] ^= change;
    for (old, new) in der[at..].iter_mut().skip(1).zip(bytes) {
        *old = *new;
    }
    der
}

fn pem(der: &[u8]) -> Vec<u8> {
    let body = STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n").into_bytes()
}

/// A key file of two versions, to be changed.
const KEY_FILE: &str = r#"{"format":1,"id":"00112233445566778899aabbccddeeff","versions":[{"version":1,"created":1700000000,"key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="},{"version":2,"created":1700000001,"key":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}]}"#;

/// What is read of a key file has an id of its form.
fn key_file(at: u16, change: u8, bytes: &[u8]) {
    let mut changed = KEY_FILE.as_bytes().to_vec();
    let at = usize::from(at) % changed.len();
    changed[at] ^= change;
    let inserted = [&changed[..at], bytes, &changed[at..]].concat();
    for text in [bytes, &changed, &inserted] {
        if let Some(file) = KeyFile::parse(text) {
            assert!(file.id().len() == 32 && file.id().bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }
}

fn authorities(bytes: &[u8]) {
    match bundle::read(bytes) {
        Ok(read) => {
            assert!(read.warnings.len() <= 5);
            read.warnings.iter().for_each(|warning| one_line(warning));
        }
        Err(problem) => one_line(&problem),
    }
}

/// A private key is never repeated in a problem.
fn client_pair(shape: u8, certificate: &[u8], bytes: &[u8]) {
    const LABELS: [&str; 4] =
        ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"];
    let label = LABELS[usize::from(shape) % LABELS.len()];
    let body = STANDARD.encode(bytes);
    let key = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
    let certificate = pem(certificate);
    for (certificate, key) in
        [(bytes, None), (&certificate, Some(bytes)), (&certificate, Some(key.as_bytes()))]
    {
        let read = ClientPair::read(&PairParts { certificate, key, password: None });
        for (_, problem) in read.err().iter().flatten() {
            one_line(problem);
            assert!(body.len() < 100 || !problem.contains(&body));
        }
    }
}

fn credential(bytes: &[u8]) {
    let file = File(bytes.to_vec());
    let of = CredentialPath {
        flag: "flag",
        what: "secret ID",
        path: "/etc/file".into(),
        is_secret: true,
        form: CredentialForm::Text(""),
    };
    let read = credential_text::read(&file, &of).now_or_never();
    match read.expect("the file is there") {
        Ok(secret) => {
            let text = std::str::from_utf8(bytes).expect("text");
            assert!(text.contains(secret.expose()) && !secret.expose().is_empty());
            assert!(!secret.expose().contains(char::is_control));
        }
        Err(error) => {
            let text = error.to_string();
            one_line(&text);
            // Longer than any word of the error's own.
            if let Ok(content) = std::str::from_utf8(bytes) {
                assert!(content.trim().len() < 100 || !text.contains(content.trim()), "{text}");
            }
        }
    }
}

fn one_line(text: &str) {
    assert!(!text.contains(char::is_control) && text.len() < 1_000, "{text:?}");
}
