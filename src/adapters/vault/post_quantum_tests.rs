//! Handshakes with servers that offer a hybrid group, and with servers that do not.

use std::{sync::Arc, time::Duration};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::{SupportedKxGroup, aws_lc_rs::kx_group},
    version::{TLS12, TLS13},
};
use rustls_pki_types::PrivateKeyDer;
use tokio::{io::AsyncReadExt as _, net::TcpListener};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    adapters::vault::{
        address::VaultAddress,
        handshake::{self, Handshake},
        servers::ServerSettings,
        tls::{Identity, TlsSettings, Trust},
    },
    domain::{
        error::{Code, KmsError},
        time::UnixTime,
    },
};

type Groups<'g> = &'g [&'static dyn SupportedKxGroup];

/// Inspects a server that offers `groups` and `version`. The client requires a hybrid group if
/// `require_pq` is set.
async fn seen(
    groups: Groups<'_>,
    version: &'static SupportedProtocolVersion,
    require_pq: bool,
) -> Result<Handshake, KmsError> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let provider = CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() };
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let settings = ServerSettings {
        addresses: vec![VaultAddress::parse(&address).unwrap()],
        tls: TlsSettings {
            trust: Trust::InsecureSkipVerify,
            identity: Identity::None,
            server_name: None,
            require_pq,
        },
        connect_timeout: Duration::from_secs(20),
        request_timeout: Duration::from_secs(20),
    };
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = acceptor.accept(stream).await {
            drop(stream.read(&mut [0; 16]).await);
        }
    };
    let looking = handshake::inspect(&settings, &settings.addresses[0], UnixTime::from_secs(0));
    tokio::join!(looking, serving).0
}

#[tokio::test]
async fn names_the_negotiated_group() {
    let cases: [(Groups<'_>, bool, &str); 4] = [
        (&[kx_group::X25519MLKEM768], true, "X25519MLKEM768"),
        (&[kx_group::SECP256R1, kx_group::SECP256R1MLKEM768], true, "secp256r1MLKEM768"),
        (&[kx_group::SECP384R1, kx_group::X25519MLKEM768], false, "X25519MLKEM768"),
        (&[kx_group::SECP384R1], false, "secp384r1"),
    ];
    for (groups, require_pq, name) in cases {
        let seen = seen(groups, &TLS13, require_pq).await.unwrap();
        assert_eq!((seen.protocol, seen.group), ("TLS 1.3", Some(name)));
    }
    let seen = seen(&[kx_group::SECP256R1], &TLS12, false).await.unwrap();
    assert_eq!((seen.protocol, seen.group), ("TLS 1.2", Some("secp256r1")));
}

#[tokio::test]
async fn rejects_a_server_without_a_hybrid_group_if_one_is_required() {
    let cases: [(Groups<'_>, _); 2] = [
        (&[kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1], &TLS13),
        (&[kx_group::SECP256R1], &TLS12),
    ];
    for (groups, version) in cases {
        let error = seen(groups, version, true).await.unwrap_err();
        assert_eq!(error.code(), Code::KeeperUnreachable);
        assert!(error.cause().contains("--tls-require-pq"), "{error}");
        assert!(error.remedy().contains("X25519MLKEM768"), "{error}");
        assert!(seen(groups, version, false).await.is_ok(), "{error}");
    }
}

/// A handshake that failed for another reason keeps its own text.
#[test]
fn keeps_an_error_with_another_cause() {
    for error in [
        Error::AlertReceived(AlertDescription::CertificateRequired),
        Error::NoCertificatesPresented,
        Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon),
    ] {
        let text = error.to_string();
        assert_eq!(
            name_missing_hybrid_group(Box::new(std::io::Error::other(error))).to_string(),
            text
        );
    }
}
