//! Real handshakes with servers that have one fault each, and the error for the operator.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use rustls::{
    AlertDescription, CertificateError, Error, OtherError, PeerIncompatible, PeerMisbehaved,
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::adapters::vault::{
    address::VaultAddress,
    client_pair::{ClientPair, Presented},
    handshake,
    servers::ServerSettings,
    tls::{Identity, TlsSettings, Trust},
    tls_error::explain,
    unreachable::unreachable,
};
use crate::domain::{
    error::{Code, KmsError},
    time,
};

type Authority = CertifiedIssuer<'static, KeyPair>;

/// Returns the parameters of a certificate for `names` that is valid until 2090.
fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, "a server");
    params.not_after = date_time_ymd(2090, 1, 1);
    params
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(&[]);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn authority(name: &str) -> Authority {
    CertifiedIssuer::self_signed(authority_params(name), KeyPair::generate().unwrap()).unwrap()
}

fn trusting(certificate: impl AsRef<Certificate>) -> Trust {
    Trust::Bundle(certificate.as_ref().pem().into_bytes())
}

/// The TLS side of a server: its chain, the key of its first certificate, its versions, and the
/// authority of the client certificate that it requires.
struct Server {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    versions: Vec<&'static rustls::SupportedProtocolVersion>,
    wants: Option<CertificateDer<'static>>,
}

impl Server {
    /// Returns a server with a certificate of `params` that `by` signed.
    fn signed(params: &CertificateParams, by: &Authority) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, by).unwrap();
        Self::new(certificate.der().clone(), key)
    }

    fn new(certificate: CertificateDer<'static>, key: KeyPair) -> Self {
        Self { chain: vec![certificate], key, versions: vec![&TLS13, &TLS12], wants: None }
    }

    fn acceptor(self) -> TlsAcceptor {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions)
            .unwrap();
        let builder = match self.wants {
            None => builder.with_no_client_auth(),
            Some(root) => {
                let mut roots = RootCertStore::empty();
                roots.add(root).unwrap();
                builder.with_client_cert_verifier(
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .unwrap(),
                )
            }
        };
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        TlsAcceptor::from(Arc::new(builder.with_single_cert(self.chain, key).unwrap()))
    }
}

fn settings(port: u16, trust: Trust) -> ServerSettings {
    ServerSettings {
        addresses: vec![VaultAddress::parse(&format!("https://127.0.0.1:{port}")).unwrap()],
        tls: TlsSettings { trust, identity: Identity::None, server_name: None, require_pq: false },
        connect_timeout: Duration::from_secs(20),
        request_timeout: Duration::from_secs(20),
    }
}

/// Sends a request over TLS to a server that runs `serve` on its connection. Returns the error.
async fn error_with<F: Future<Output = ()> + Send + 'static>(
    trust: Trust,
    serve: impl FnOnce(TcpStream) -> F,
) -> KmsError {
    error_over("https", trust, serve).await
}

/// Sends a request to a server that runs `serve` on its connection. Returns the error, made from
/// the same nested library errors as in production.
async fn error_over<F: Future<Output = ()> + Send + 'static>(
    scheme: &str,
    trust: Trust,
    serve: impl FnOnce(TcpStream) -> F,
) -> KmsError {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let settings = settings(port, trust);
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(settings.tls.client_config().unwrap())
        .https_or_http()
        .enable_http1()
        .wrap_connector(settings.connector(&[]));
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(https);
    let address = &VaultAddress::parse(&format!("{scheme}://127.0.0.1:{port}")).unwrap();
    let asking = client.get(address.join("sys/health").unwrap());
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        drop(tokio::spawn(serve(stream)));
    };
    let (answer, ()) = tokio::join!(asking, serving);
    let error = answer.unwrap_err();
    let error = unreachable(address, &error, error.is_connect());
    assert_eq!(error.code(), Code::KeeperUnreachable);
    assert_plain(error.cause());
    error
}

/// Sends a request to the TLS server `server` and returns the error.
async fn error_from(server: Server, trust: Trust) -> KmsError {
    let acceptor = server.acceptor();
    error_with(trust, move |stream| async move {
        if let Ok(mut stream) = acceptor.accept(stream).await {
            drop(stream.read(&mut [0; 1_024]).await);
        }
    })
    .await
}

/// Checks that `text` contains no type name of a library.
fn assert_plain(text: &str) {
    let is_type = |word: &str| {
        word.as_bytes().windows(2).any(|two| {
            two.first().is_some_and(u8::is_ascii_lowercase)
                && two.last().is_some_and(u8::is_ascii_uppercase)
        })
    };
    assert!(!text.split_whitespace().any(is_type) && !text.contains('{'), "{text}");
}

fn says(error: &KmsError, cause: &str, remedy: &str) {
    assert!(error.cause().contains(cause), "{cause:?} is not in the cause: {error}");
    assert!(error.remedy().contains(remedy), "{remedy:?} is not in the remedy: {error}");
}

#[tokio::test]
async fn names_both_times_for_an_expired_or_future_certificate() {
    let root = authority("root");
    let mut past = params(&["127.0.0.1"]);
    past.not_after = date_time_ymd(2020, 1, 1);
    let error = error_from(Server::signed(&past, &root), trusting(&root)).await;
    says(&error, "expired on 2020-01-01T00:00:00Z; this node's clock says 20", "renew");
    says(&error, "", "clock, which is ahead");
    let mut future = params(&["127.0.0.1"]);
    future.not_before = date_time_ymd(2080, 1, 1);
    let error = error_from(Server::signed(&future, &root), trusting(&root)).await;
    says(&error, "not valid before 2080-01-01T00:00:00Z; this node's", "clock, which is behind");
}

#[tokio::test]
async fn lists_the_names_of_a_certificate_for_another_name() {
    let root = authority("root");
    let server = Server::signed(&params(&["vault.example", "10.0.0.1", "*.b.example"]), &root);
    let error = error_from(server, trusting(&root)).await;
    says(&error, "not for 127.0.0.1 but for vault.example, 10.0.0.1, *.b.example", "--tls-sni");
    let error = error_from(Server::signed(&params(&[]), &root), trusting(&root)).await;
    says(&error, "no subject alternative name for 127.0.0.1", "a common name does not count");
}

#[tokio::test]
async fn names_the_missing_certificate_for_an_unknown_issuer() {
    let root = authority("root");
    let other = authority("other");
    let key = KeyPair::generate().unwrap();
    let own = params(&["127.0.0.1"]).self_signed(&key).unwrap();
    let error = error_from(Server::new(own.der().clone(), key), trusting(&root)).await;
    says(&error, "self-signed and not among the authorities in --tls-ca-file", "put that cert");

    let between = KeyPair::generate().unwrap();
    let between = CertifiedIssuer::signed_by(authority_params("between"), between, &root).unwrap();
    let server = Server::signed(&params(&["127.0.0.1"]), &between);
    let error = error_from(server, trusting(&root)).await;
    says(&error, "the server sent no other", "send the intermediate certificates");

    let mut server = Server::signed(&params(&["127.0.0.1"]), &between);
    server.chain.push(between.der().clone());
    let error = error_from(server, trusting(&other)).await;
    says(&error, "do not lead to one of the authorities in --tls-ca-file", "the last of them");
}

#[tokio::test]
async fn detects_a_renewed_authority_of_the_same_name() {
    let (former, present) = (authority("root"), authority("root"));
    let error =
        error_from(Server::signed(&params(&["127.0.0.1"]), &present), trusting(&former)).await;
    says(&error, "not signed by the key of the trusted authority of that name", "--tls-ca-file");
}

#[tokio::test]
async fn detects_an_authority_certificate_on_a_server() {
    let key = KeyPair::generate().unwrap();
    let mut own = params(&["127.0.0.1"]);
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = own.self_signed(&key).unwrap();
    let error =
        error_from(Server::new(own.der().clone(), key), Trust::Bundle(own.pem().into_bytes()))
            .await;
    says(&error, "CA:TRUE", "CA:FALSE");
}

#[tokio::test]
async fn detects_a_client_certificate_on_a_server() {
    let root = authority("root");
    let mut client = params(&["127.0.0.1"]);
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let error = error_from(Server::signed(&client, &root), trusting(&root)).await;
    says(&error, "not for servers", "serverAuth");
}

/// With TLS 1.3 the alert arrives after the handshake, when the client reads the answer.
#[tokio::test]
async fn detects_a_server_that_requires_a_client_certificate() {
    let root = authority("root");
    for version in [&TLS12, &TLS13] {
        let mut server = Server::signed(&params(&["127.0.0.1"]), &root);
        server.versions = vec![version];
        server.wants = Some(root.der().clone());
        let error = error_from(server, trusting(&root)).await;
        says(&error, "wants a client certificate", "give --tls-client-cert-file");
    }
}

#[tokio::test]
async fn names_the_reason_if_the_bundle_is_unavailable() {
    let server = Server::signed(&params(&["127.0.0.1"]), &authority("root"));
    let why = "--tls-ca-file: /ca.pem cannot be read: No such file or directory";
    let error = error_from(server, Trust::BundleUnavailable(why.to_owned())).await;
    says(&error, why, "write the PEM bundle");
}

#[tokio::test]
async fn names_the_reason_if_the_client_certificate_is_unavailable() {
    let root = authority("root");
    let server = Server::signed(&params(&["127.0.0.1"]), &root);
    let why = "--tls-client-cert-file: /c.pem cannot be read: No such file or directory";
    let identity = Identity::Unavailable { why: why.to_owned(), remedy: Identity::WRITE_THE_FILES };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(listener.local_addr().unwrap().port(), trusting(&root));
    settings.tls.identity = identity;
    let acceptor = server.acceptor();
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(acceptor.accept(stream).await.is_err());
    };
    let now = time::UnixTime::from_secs(0);
    let looking = handshake::inspect(&settings, &settings.addresses[0], now);
    let (seen, ()) = tokio::join!(looking, serving);
    says(&seen.unwrap_err(), why, "write the client certificate");
}

/// With TLS 1.2 the alert arrives in the handshake.
#[tokio::test]
async fn names_the_client_certificate_that_a_server_does_not_accept() {
    let (root, other) = (authority("root"), authority("other"));
    let mut server = Server::signed(&params(&["127.0.0.1"]), &root);
    server.versions = vec![&TLS12];
    server.wants = Some(root.der().clone());
    let acceptor = server.acceptor();
    let key = KeyPair::generate().unwrap();
    let own = params(&["client"]).signed_by(&key, &other).unwrap();
    let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let pair = ClientPair::new(vec![own.der().clone()], &der, "the client certificate").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(listener.local_addr().unwrap().port(), trusting(&root));
    settings.tls.identity = Identity::Pair(pair);
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(acceptor.accept(stream).await.is_err());
    };
    let now = time::UnixTime::from_secs(0);
    let looking = handshake::inspect(&settings, &settings.addresses[0], now);
    let (seen, ()) = tokio::join!(looking, serving);
    let cause = "does not know the authority that signed the client certificate";
    says(&seen.unwrap_err(), cause, "tls_client_ca_file");
}

#[test]
fn explains_alerts_about_a_client_certificate_that_was_sent() {
    let end = Some(time::UnixTime::from_secs(0));
    let presented = Presented { name: "the client certificate", end };
    for (alert, cause, remedy) in [
        (AlertDescription::CertificateRequired, "signature algorithms of the client", "ECDSA"),
        (AlertDescription::BadCertificate, "does not accept the client", "clientAuth"),
        (AlertDescription::UnsupportedCertificate, "(alert 43)", "clientAuth"),
        (AlertDescription::CertificateRevoked, "is revoked", "write a new certificate"),
        (AlertDescription::CertificateExpired, "valid until 1970-01-01T00:00:00Z", "clocks"),
        (AlertDescription::CertificateUnknown, "(alert 46)", "clientAuth"),
        (AlertDescription::UnknownCA, "does not know the authority", "tls_client_ca_file"),
        (AlertDescription::AccessDenied, "does not allow the client", "allow this certificate"),
        (AlertDescription::UnrecognisedName, "no site", "--tls-sni"),
    ] {
        let (text, told) = explain(&Error::AlertReceived(alert), Some(presented));
        assert!(text.contains(cause) && told.contains(remedy), "{cause}: {text}; {told}");
        assert_plain(&text);
    }
}

/// Waits for the first bytes of a handshake, and then sends `answer`.
async fn answering(mut stream: TcpStream, answer: &'static [u8]) -> TcpStream {
    let _count = stream.read(&mut vec![0; 16_384]).await.unwrap();
    stream.write_all(answer).await.unwrap();
    stream
}

#[tokio::test]
async fn detects_a_server_that_does_not_speak_tls() {
    for answer in ["HTTP/1.0 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9.6\r\n"] {
        let error = error_with(Trust::System, move |stream| async move {
            drop(answering(stream, answer.as_bytes()).await);
        });
        says(&error.await, "does not speak TLS", "http:// in --vault-address");
    }
}

#[tokio::test]
async fn detects_a_server_that_speaks_tls() {
    // A front that is not written in Go answers plain HTTP with an alert.
    let alert = &[21, 3, 1, 0, 2, 2, 70];
    let error = error_over("http", Trust::System, move |stream| async move {
        drop(answering(stream, alert).await);
    });
    says(&error.await, "does not answer in HTTP", "https:// in --vault-address");
}

#[tokio::test]
async fn explains_alerts() {
    for (alert, cause, remedy) in [
        (&[21, 3, 3, 0, 2, 2, 40], "no TLS version or cipher in common", "allow TLS 1.3"),
        (&[21, 3, 1, 0, 2, 2, 70], "no TLS version or cipher in common", "allow TLS 1.3"),
        (&[21, 3, 3, 0, 2, 2, 116], "wants a client certificate", "on the listener"),
        (&[21, 3, 3, 0, 2, 2, 42], "(alert 42), and no client certificate was sent", "in between"),
        (&[21, 3, 3, 0, 2, 2, 45], "(alert 45), and no client certificate was sent", "in between"),
        (&[21, 3, 3, 0, 2, 2, 48], "(alert 48), and no client certificate was sent", "in between"),
        (&[21, 3, 3, 0, 2, 2, 112], "no site with the requested name", "--tls-sni"),
        (&[21, 3, 3, 0, 2, 2, 80], "alert 80", "the server's log"),
        (&[21, 3, 3, 0, 2, 2, 99], "alert 99", "the server's log"),
    ] {
        let error = error_with(Trust::System, move |stream| async move {
            drop(answering(stream, alert).await);
        });
        says(&error.await, cause, remedy);
    }
}

#[tokio::test]
async fn detects_a_connection_that_ends_in_the_handshake() {
    let closed = error_with(Trust::System, |stream| async move {
        drop(answering(stream, b"").await);
    });
    says(&closed.await, "closed in the TLS handshake", "a proxy or balancer");
    let reset = error_with(Trust::System, |stream| async move {
        let stream = answering(stream, b"").await;
        stream.set_zero_linger().unwrap();
        drop(stream);
    });
    says(&reset.await, "reset in the TLS handshake", "a proxy or balancer");
}

#[tokio::test]
async fn reports_a_port_without_a_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = settings(listener.local_addr().unwrap().port(), Trust::System);
    drop(listener);
    let now = time::UnixTime::from_secs(0);
    let error = handshake::inspect(&settings, &settings.addresses[0], now).await.unwrap_err();
    says(&error, "Connection refused", "that the keeper runs");
}

/// The servers of these tests cannot cause these errors.
#[test]
fn explains_every_other_error() {
    let webpki = |error: webpki::Error| {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
    };
    let weak = CertificateError::UnsupportedSignatureAlgorithmContext {
        signature_algorithm_id: vec![1],
        supported_algorithms: Vec::new(),
    };
    for (error, cause) in [
        (CertificateError::Revoked.into(), "revoked"),
        (CertificateError::Expired.into(), "expired"),
        (CertificateError::NotValidYet.into(), "not valid yet"),
        (CertificateError::NotValidForName.into(), "subject alternative name"),
        (CertificateError::UnknownIssuer.into(), "do not lead to"),
        (CertificateError::BadEncoding.into(), "cannot be read"),
        (weak.into(), "SHA-1"),
        (CertificateError::ApplicationVerificationFailure.into(), "unknown reason"),
        (webpki(webpki::Error::EndEntityUsedAsCa), "CA:TRUE is missing"),
        (webpki(webpki::Error::UnsupportedCertVersion), "version 3"),
        (webpki(webpki::Error::NameConstraintViolation), "must not issue"),
        (webpki(webpki::Error::PathLenConstraintViolated), "more intermediate authorities"),
        (webpki(webpki::Error::UnsupportedCriticalExtension), "critical extension"),
        (webpki(webpki::Error::MaximumPathBuildCallsExceeded), "unknown reason"),
        (Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13), "neither"),
        (Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon), "safe"),
        (Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon), "no cipher"),
        (
            Error::PeerIncompatible(PeerIncompatible::ExtendedMasterSecretExtensionRequired),
            "RFC 7627",
        ),
        (Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare), "violated the TLS protocol"),
        (Error::NoCertificatesPresented, "no certificate"),
        (Error::DecryptError, "on the way"),
        (Error::FailedToGetCurrentTime, "clock"),
        (Error::General("SomeText".to_owned()), "unknown reason"),
        (Error::AlertReceived(AlertDescription::Unknown(200)), "alert 200"),
    ] {
        let (text, remedy) = explain(&error, None);
        assert!(text.contains(cause) && !remedy.is_empty(), "{cause}: {text}; {remedy}");
        assert_plain(&text);
    }
    let expired = CertificateError::ExpiredContext {
        time: UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX)),
        not_after: UnixTime::since_unix_epoch(Duration::ZERO),
    };
    assert!(explain(&expired.into(), None).0.contains("expired on 1970-01-01T00:00:00Z"));
}

/// The server chooses the names, so any other text in them must not reach the message.
#[test]
fn leaves_out_hostile_names() {
    let expected = "a.example".try_into().unwrap();
    let presented = [
        "DnsName(\"x\u{1b}[0m\")",
        "Unsupported(0x00)",
        "IpAddress([9, 9])",
        "DnsName(\"b.example\")",
    ];
    let presented = presented.map(str::to_owned).to_vec();
    let error = CertificateError::NotValidForNameContext { expected, presented };
    assert!(explain(&error.into(), None).0.ends_with("not for a.example but for b.example"));
}

#[tokio::test]
async fn inspect_returns_the_end_of_the_chain() {
    let root = authority("root");
    let acceptor = Server::signed(&params(&["127.0.0.1"]), &root).acceptor();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = settings(listener.local_addr().unwrap().port(), trusting(&root));
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        drop(acceptor.accept(stream).await.unwrap());
    };
    let end = time::UnixTime::from_secs(date_time_ymd(2090, 1, 1).unix_timestamp());
    let ten_days_before = time::UnixTime::from_secs(end.secs() - 10 * 86_400 - 1);
    let looking = handshake::inspect(&settings, &settings.addresses[0], ten_days_before);
    let (seen, ()) = tokio::join!(looking, serving);
    let seen = seen.unwrap();
    assert_eq!((seen.protocol, seen.end, seen.days_left), ("TLS 1.3", Some(end), Some(10)));
}
