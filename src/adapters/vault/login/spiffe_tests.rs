//! Tests of the login with an X.509-SVID: when its material counts as changed.

use std::sync::{Mutex, atomic::AtomicU64};

use futures_util::FutureExt as _;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    adapters::vault::{
        address::VaultAddress,
        client::VaultClient,
        key_path::{MountPath, Namespace},
        login::method::AuthMethod,
        servers::ServerSettings,
        tls::{Identity, TlsSettings, Trust},
    },
    domain::{secret::Plaintext, time::Monotonic},
    ports::{clock::MockClock, telemetry::MockTelemetry},
};

/// An agent that returns the certificate of the test. `None` is a problem with the agent.
#[derive(Debug)]
struct Agent(Mutex<Option<Arc<IdentityCertificate>>>);

#[async_trait]
impl WorkloadIdentity for Agent {
    fn place(&self) -> String {
        "/agent.sock".to_owned()
    }

    async fn jwt(&self, _audience: &str) -> Result<Secret, KmsError> {
        unreachable!("an X.509 login needs no JWT")
    }

    async fn certificate(&self) -> Result<Arc<IdentityCertificate>, KmsError> {
        let silent = || KmsError::new(Code::CredentialUnreadable, "no answer", "start the agent");
        self.0.lock().unwrap().clone().ok_or_else(silent)
    }

    async fn next_certificate<'a>(
        &self,
        _known: Option<&'a IdentityCertificate>,
    ) -> Arc<IdentityCertificate> {
        pending().await
    }

    async fn follow(&self) {
        pending::<()>().await;
    }
}

/// Returns a certificate that expires on 1 January of `year`.
fn expiring_in(year: i32) -> Arc<IdentityCertificate> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.not_after = date_time_ymd(year, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    Arc::new(IdentityCertificate {
        id: "spiffe://example.org/kms".to_owned(),
        chain: vec![certificate.der().to_vec()],
        key: Plaintext::new(key.serialize_der()),
    })
}

/// Returns the login at the start of 2026, and its agent.
fn login(first: Option<Arc<IdentityCertificate>>) -> (SpiffeX509, Arc<Agent>) {
    let mut clock = MockClock::new();
    clock.expect_wall().return_const(UnixTime::from_secs(1_767_225_600));
    clock.expect_now().return_const(Monotonic::default());
    let mut telemetry = MockTelemetry::new();
    telemetry.expect_record().return_const(());
    let clock = Arc::new(clock);
    let settings = ServerSettings {
        addresses: vec![VaultAddress::parse("https://127.0.0.1:1").unwrap()],
        tls: TlsSettings {
            trust: Trust::InsecureSkipVerify,
            identity: Identity::None,
            server_name: None,
            require_pq: false,
        },
        connect_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(1),
    };
    let client = VaultClient::new(settings, Arc::<MockClock>::clone(&clock), Arc::new(telemetry));
    let requests = Arc::new(Requests {
        method: AuthMethod::Spiffe,
        client: Arc::new(client.unwrap()),
        clock,
        mount: MountPath::parse("cert").unwrap(),
        namespace: Namespace::parse("").unwrap(),
        timeout: Duration::from_secs(1),
        unwraps: true,
        granted: AtomicU64::default(),
        refused_late: Mutex::default(),
        running: TaskTracker::new(),
    });
    let settings = SpiffeLoginSettings {
        agent: AgentSettings { socket: "/agent.sock".into(), id: None },
        role: String::new(),
        svid: Svid::X509,
    };
    let agent = Arc::new(Agent(Mutex::new(first)));
    (SpiffeX509::new(requests, &settings, Arc::<Agent>::clone(&agent)), agent)
}

fn is_changed(login: &SpiffeX509) -> bool {
    login.changed().now_or_never().is_some()
}

#[tokio::test]
async fn an_expired_certificate_does_not_count_as_changed_until_the_next_one_is_presented() {
    let (login, _agent) = login(Some(expiring_in(2025)));
    let error = login.materials().await.unwrap_err();
    assert!(error.cause().contains("expired"), "{error}");
    assert!(!is_changed(&login), "the expired certificate is the one that was read");
    login.present(&expiring_in(2027)).unwrap();
    assert!(is_changed(&login));
}

#[tokio::test]
async fn a_silent_agent_does_not_make_the_presented_certificate_count_as_changed() {
    let (login, agent) = login(None);
    login.present(&expiring_in(2027)).unwrap();
    login.materials().await.unwrap_err();
    assert!(!is_changed(&login), "connections present what they presented before the read");
    *agent.0.lock().unwrap() = Some(expiring_in(2028));
    login.materials().await.unwrap();
    assert!(!is_changed(&login));
}
