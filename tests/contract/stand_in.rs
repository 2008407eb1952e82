//! Tests the Vault adapter against the stand-in: every rule, and then every fault.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use serde_json::json;
use vault_kube_kms::{
    adapters::vault::vocabulary::ENTERPRISE_REQUIRED,
    domain::{
        envelope::{Annotations, AssociatedData, Ciphertext},
        error::Code,
        health::OutagePolicy,
        key::KekVersion,
        key_id::{KeyIdentity, Lineage},
        rotation::KeyRing,
        secret::Plaintext,
        service::KeyService,
        time::Monotonic,
        watch::KeyWatch,
    },
    ports::{Ports, kek::Unwrap, kms::KeyManagement},
    testkit::{Hook, Subject, hold_to_every_rule},
};

use crate::support::{
    admin::Admin,
    stand_in::{Fault, Manner, StandIn},
    transit::{Silence, TransitSubject},
};

/// Makes a stand-in and a keeper for it.
pub async fn subject(manner: Manner) -> (TransitSubject, StandIn) {
    let stand_in = StandIn::with(manner).await;
    let admin = Admin::new(&stand_in.address, "unused", Some(stand_in.ca.clone()));
    (TransitSubject::new(admin, stand_in.provisioned.clone()), stand_in)
}

pub fn within(subject: &TransitSubject, wait: Duration) -> Monotonic {
    subject.clock().now().after(wait)
}

pub const SOON: Duration = Duration::from_secs(5);

async fn wrapped(subject: &TransitSubject) -> (Ciphertext, AssociatedData) {
    let associated_data = AssociatedData::binding("id", &Annotations::ours());
    let seed = Plaintext::new(vec![7; 32]);
    let until = within(subject, SOON);
    let wrapped =
        subject.kek.wrap(KekVersion::FIRST, &seed, &associated_data, until).await.unwrap();
    (wrapped.ciphertext, associated_data)
}

/// Returns the errors of describe, wrap and unwrap, with the deadline `wait`.
async fn failures(
    subject: &TransitSubject,
    wait: Duration,
    sealed: &(Ciphertext, AssociatedData),
) -> [Code; 3] {
    let seed = Plaintext::new(vec![7; 32]);
    let described = subject.kek.describe(within(subject, wait)).await.unwrap_err();
    let until = within(subject, wait);
    let wrapped = subject.kek.wrap(KekVersion::FIRST, &seed, &sealed.1, until).await.unwrap_err();
    let item = Unwrap { ciphertext: &sealed.0, associated_data: &sealed.1 };
    let unwrapped = subject.kek.unwrap(item, within(subject, wait)).await.unwrap_err();
    [described.code(), wrapped.code(), unwrapped.code()]
}

struct WithStandIn(TransitSubject, StandIn);

#[async_trait::async_trait]
impl Subject for WithStandIn {
    fn kek(&self) -> Arc<dyn vault_kube_kms::ports::kek::Kek> {
        self.0.kek()
    }

    async fn rotate(&self) {
        self.1.rotate();
    }

    fn clock(&self) -> Arc<dyn vault_kube_kms::ports::clock::Clock> {
        self.0.clock()
    }

    async fn outage(&self, away: bool) -> Hook {
        self.1.set_fault(away.then_some(Fault::Reset));
        Hook::Done
    }

    async fn retire(&self, version: KekVersion) -> Hook {
        self.1.shared.engine.lock().unwrap().min_decryption = version.next().get();
        Hook::Done
    }

    async fn replace(&self) -> Hook {
        self.1.shared.engine.lock().unwrap().replace();
        Hook::Done
    }

    async fn hang(&self, hangs: bool) -> Hook {
        self.1.set_fault(hangs.then_some(Fault::Hang));
        Hook::Done
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stand_in_keeps_every_rule() {
    hold_to_every_rule(|_| async {
        let (subject, stand_in) = subject(Manner::default()).await;
        WithStandIn(subject, stand_in)
    })
    .await;
}

/// The answer of Go's server to plain HTTP on a TLS port.
const PLAIN_HTTP: &str = "Client sent an HTTP request to an HTTPS server.\n";

#[tokio::test]
async fn every_fault_is_classified_and_passes() {
    let (subject, stand_in) = subject(Manner::default()).await;
    let sealed = wrapped(&subject).await;
    for (fault, code) in [
        (Fault::Reset, Code::KeeperUnreachable),
        (Fault::HalfBody, Code::KeeperUnreachable),
        (Fault::html_502(), Code::Intermediary),
        // Each of these once counted as a statement of the keeper about key, policy or stored
        // object.
        (Fault::Says(200, "<html>Sign in</html>".to_owned()), Code::Intermediary),
        (Fault::Says(400, "<html>Bad Request</html>".to_owned()), Code::Intermediary),
        (Fault::Says(403, "<html>Forbidden</html>".to_owned()), Code::Intermediary),
        (Fault::Says(404, "default backend - 404".to_owned()), Code::Intermediary),
        (Fault::Says(400, PLAIN_HTTP.to_owned()), Code::KeeperUnreachable),
        (Fault::error(400, "path disabled in replication DR secondary mode"), Code::KeeperSealed),
        (Fault::quota(), Code::KeeperOverloaded),
        (Fault::sealed(), Code::KeeperSealed),
        (Fault::redirect_elsewhere(), Code::KeeperFailed),
        (Fault::nonsense(), Code::Intermediary),
    ] {
        stand_in.set_fault(Some(fault.clone()));
        assert_eq!(failures(&subject, SOON, &sealed).await, [code; 3], "{fault:?}");
        stand_in.set_fault(None);
        heals(&subject).await;
    }
}

/// The keeper's answer is wrong, and not the call.
#[tokio::test]
async fn a_wrong_ciphertext_is_the_keepers_fault() {
    let (subject, stand_in) = subject(Manner::default()).await;
    let (_, associated_data) = wrapped(&subject).await;
    let seed = Plaintext::new(vec![7; 32]);
    for data in [
        json!({"ciphertext": ""}),
        json!({"ciphertext": "AAAA"}),
        json!({"ciphertext": format!("vault:v1:{}", "A".repeat(2_000))}),
        json!({"ciphertext": "vault:v1:AAAA", "key_version": 2}),
    ] {
        let answer = Fault::Says(200, json!({"data": data}).to_string());
        stand_in.fail_next(1, "transit/encrypt/k1", &answer);
        let until = within(&subject, SOON);
        let refused = subject.kek.wrap(KekVersion::FIRST, &seed, &associated_data, until).await;
        assert_eq!(refused.unwrap_err().code(), Code::KeeperAnswer, "{data}");
    }
}

/// An endpoint that failed is not used for two seconds at most. Only one that hangs takes as long
/// as the limit.
pub async fn heals(subject: &TransitSubject) {
    let healed = async {
        while subject.kek.describe(within(subject, SOON)).await.is_err() {
            subject.clock().sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(4 * SOON, healed).await.expect("it heals");
}

#[tokio::test]
async fn ends_a_call_to_a_hanging_keeper_at_the_deadline() {
    let (subject, stand_in) = subject(Manner::default()).await;
    let sealed = wrapped(&subject).await;
    stand_in.set_fault(Some(Fault::Hang));
    let codes = failures(&subject, Duration::from_millis(300), &sealed).await;
    for code in codes {
        assert!(matches!(code, Code::KeeperTimeout | Code::DeadlineExceeded), "{code}");
    }
}

#[tokio::test]
async fn waits_for_a_slow_keeper_until_the_deadline() {
    let (subject, stand_in) = subject(Manner::default()).await;
    wrapped(&subject).await;
    stand_in.set_fault(Some(Fault::Delay(Duration::from_millis(200))));
    subject.kek.describe(within(&subject, SOON)).await.unwrap();
}

#[tokio::test]
async fn an_expired_token_costs_one_login_for_all_calls() {
    let (subject, stand_in) = subject(Manner::default()).await;
    wrapped(&subject).await;
    assert_eq!(stand_in.requests_for("auth/approle/login"), 1);
    stand_in.expire_tokens();
    // A token that is refused soon after its login is replaced a little later. All 16 calls get
    // the same new one.
    let calls = (0..16).map(|_| {
        let (kek, clock) = (subject.kek.clone(), subject.clock());
        tokio::spawn(async move {
            while kek.describe(clock.now().after(SOON)).await.is_err() {
                clock.sleep(Duration::from_millis(50)).await;
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        tokio::time::timeout(Duration::from_secs(20), call).await.expect("it heals").unwrap();
    }
    assert_eq!(stand_in.requests_for("auth/approle/login"), 2);
}

#[tokio::test]
async fn tries_a_refused_secret_id_again_only_after_the_file_changes() {
    let stand_in = StandIn::start().await;
    stand_in.shared.engine.lock().unwrap().secret_id = "the-new-one".to_owned();
    let admin = Admin::new(&stand_in.address, "unused", Some(stand_in.ca.clone()));
    let subject = TransitSubject::new(admin, stand_in.provisioned.clone());
    for _ in 0..5 {
        let error = subject.kek.describe(within(&subject, SOON)).await.unwrap_err();
        assert_eq!(error.code(), Code::LoginRefused);
        assert!(!error.to_string().contains("canary"), "{error}");
    }
    assert_eq!(stand_in.requests_for("auth/approle/login"), 1);
    fs::write(&subject.secret_id_path, "the-new-one").unwrap();
    let healed = async {
        while subject.kek.describe(within(&subject, SOON)).await.is_err() {
            subject.clock().sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(4 * SOON, healed).await.expect("it notices the new file");
}

#[tokio::test]
async fn require_enterprise_accepts_only_a_server_with_a_licence() {
    for (enterprise, admitted) in [(true, Ok(())), (false, Err(ENTERPRISE_REQUIRED))] {
        let manner = Manner { enterprise, ..Manner::default() };
        let stand_in = StandIn::with(manner).await;
        let admin = Admin::new(&stand_in.address, "unused", Some(stand_in.ca.clone()));
        let subject = TransitSubject::with(admin, stand_in.provisioned.clone(), |wiring| {
            wiring.transit.require_enterprise = true;
        });
        let described = subject.kek.describe(within(&subject, SOON)).await;
        assert_eq!(described.map(drop).map_err(|error| error.code()), admitted);
    }
}

/// Vault before 1.13 ignores associated data without an error. The keeper must detect this before
/// it writes.
#[tokio::test]
async fn a_server_that_ignores_associated_data_never_writes() {
    let manner = Manner { ignores_associated_data: true, ..Manner::default() };
    let (subject, _stand_in) = subject(manner).await;
    never_writes(&subject).await;
}

/// Fails unless a service over `subject` finds out that associated data is not enforced, and writes
/// nothing.
pub async fn never_writes(subject: &TransitSubject) {
    let ports =
        Ports { kek: subject.kek.clone(), clock: subject.clock(), telemetry: Arc::new(Silence) };
    let identity = KeyIdentity::new(Lineage::of_place("transit", &["k1"]), 0);
    let ring = KeyRing::new(identity, Duration::from_secs(60), BTreeMap::new());
    let grace = Duration::from_secs(30);
    let watch = Arc::new(KeyWatch::new(ports, ring, OutagePolicy::KeepWriting, grace));
    watch.read_metadata().await;
    watch.prove(Duration::MAX).await;
    let kms = KeyService::new(watch, true);
    assert_eq!(kms.status().unwrap_err().code(), Code::AadNotEnforced);
    let refused = kms.encrypt(Plaintext::new(vec![7; 32]), within(subject, SOON)).await;
    assert_eq!(refused.unwrap_err().code(), Code::AadNotEnforced);
}
