//! Tests of the session in virtual time: waits end at once, and in their order.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use tokio::{sync::Notify, time::Instant};

use super::*;
use crate::{
    adapters::vault::login::port::{LoginMethod, LoginSecret, Material, Tokens},
    domain::{secret::Secret, time::UnixTime},
    ports::telemetry::MockTelemetry,
};

/// Tokio's clock, which the tests pause.
#[derive(Debug)]
struct Virtual(Instant);

#[async_trait]
impl Clock for Virtual {
    fn now(&self) -> Monotonic {
        Monotonic::at(self.0.elapsed())
    }
    /// Checklist 55: a session must not use the wall clock, which can jump.
    fn wall(&self) -> UnixTime {
        unreachable!("a session uses the monotonic clock only")
    }
    fn jitter(&self) -> f64 {
        0.5
    }
    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}

/// The result of a login or a renewal: a lease in seconds (`None` never expires), or a failure.
type Outcome = Result<Option<u64>, Code>;

/// Credentials that return scripted outcomes in order, and then repeat the last one. They log the
/// time of each call.
#[derive(Debug)]
struct Scripted {
    started: Instant,
    logins: Vec<Outcome>,
    renewals: Vec<Outcome>,
    renewable: bool,
    /// Whether its tokens belong to the session.
    own: bool,
    /// Whether failed logins are refusals of the material.
    refuses: bool,
    /// How long a login and a renewal take.
    takes: Duration,
    material: AtomicU64,
    changed: Notify,
    log: Mutex<Vec<(&'static str, u64)>>,
}

impl Scripted {
    fn new(logins: Vec<Outcome>, renewals: Vec<Outcome>) -> Self {
        Self {
            started: Instant::now(),
            logins,
            renewable: !renewals.is_empty(),
            renewals,
            own: true,
            refuses: false,
            takes: Duration::ZERO,
            material: AtomicU64::new(0),
            changed: Notify::new(),
            log: Mutex::default(),
        }
    }

    /// Replaces the credential by another one.
    fn change(&self) {
        self.material.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
    }

    async fn next(&self, what: &'static str, script: &[Outcome]) -> Result<Lease, KmsError> {
        let number = {
            let mut log = self.log.lock().unwrap();
            log.push((what, self.started.elapsed().as_secs()));
            log.iter().filter(|(done, _)| *done == what).count() - 1
        };
        tokio::time::sleep(self.takes).await;
        match script.get(number).or(script.last()).unwrap() {
            Ok(ttl) => Ok(Lease {
                token: Secret::new("token".to_owned()),
                ttl: ttl.map(Duration::from_secs),
                renewable: self.renewable,
                own: self.own,
                ends_with_credential: !self.own,
            }),
            Err(code) => Err(KmsError::new(*code, "scripted", "none")),
        }
    }

    /// Returns the second of each call of `what`.
    fn seconds(&self, what: &str) -> Vec<u64> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|(done, _)| *done == what).map(|(_, at)| *at).collect()
    }
}

#[async_trait]
impl LoginMethod for Scripted {
    async fn materials(&self) -> Result<Vec<Material>, KmsError> {
        let role = Secret::new(self.material.load(Ordering::Relaxed).to_string());
        let digest = CredentialDigest::of(&role);
        Ok(vec![Material { digest, role, secret: LoginSecret::NotNeeded }])
    }
    async fn login(&self, _: &Material) -> Result<Lease, LoginFailure> {
        let kind = if self.refuses { LoginFailure::Refused } else { LoginFailure::Failed };
        self.next("login", &self.logins).await.map_err(kind)
    }
    async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[async_trait]
impl Tokens for Scripted {
    fn keeper(&self) -> String {
        "https://keeper:8200".to_owned()
    }
    async fn renew(&self, _: &Secret) -> Result<Lease, KmsError> {
        self.next("renewal", &self.renewals).await
    }
    async fn revoke(&self, _: &Secret) -> Result<(), KmsError> {
        self.log.lock().unwrap().push(("revocation", self.started.elapsed().as_secs()));
        Ok(())
    }
}

fn login(credentials: &Arc<Scripted>) -> Login {
    Login {
        place: "auth/approle (approle)".to_owned(),
        method: Arc::<Scripted>::clone(credentials),
        tokens: Arc::<Scripted>::clone(credentials),
    }
}

/// Returns a running session with `credentials`.
fn run(credentials: &Arc<Scripted>) -> Arc<VaultSession> {
    let mut telemetry = MockTelemetry::new();
    telemetry.expect_record().returning(|_| ());
    let clock = Virtual(credentials.started);
    let session =
        Arc::new(VaultSession::new(login(credentials), Arc::new(clock), Arc::new(telemetry)));
    let running = Arc::clone(&session);
    tokio::spawn(async move { running.run().await });
    session
}

fn session(logins: Vec<Outcome>, renewals: Vec<Outcome>) -> (Arc<VaultSession>, Arc<Scripted>) {
    let credentials = Arc::new(Scripted::new(logins, renewals));
    (run(&credentials), credentials)
}

/// Reports every token as refused at its first use.
fn reject_every_token(session: &Arc<VaultSession>) {
    let users = Arc::clone(session);
    tokio::spawn(async move {
        loop {
            if let Ok(held) = users.token(late()).await {
                drop(users.newer_than(held.generation, late()).await);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Returns a deadline that no test reaches.
fn late() -> Monotonic {
    Monotonic::at(Duration::from_hours(1_000))
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_at_two_thirds_of_its_life() {
    let (_session, credentials) = session(vec![Ok(Some(90))], vec![Ok(Some(90))]);
    pass(250).await;
    assert_eq!(credentials.seconds("renewal"), [60, 120, 180, 240]);
    assert_eq!(credentials.seconds("login"), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_capped_renewal_leads_to_a_login_before_the_end() {
    let renewals = vec![Ok(Some(90)), Ok(Some(30)), Ok(Some(90))];
    let (session, credentials) = session(vec![Ok(Some(90))], renewals);
    let held = session.token(late()).await.unwrap();
    pass(145).await;
    // The second renewal, at 120 s, gave 30 s.
    assert_eq!(credentials.seconds("login"), [0, 140]);
    assert_eq!(session.token(late()).await.unwrap().generation, held.generation + 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_renewed_is_replaced_at_two_thirds() {
    let (_session, credentials) = session(vec![Ok(Some(90))], vec![]);
    pass(130).await;
    assert_eq!(credentials.seconds("login"), [0, 60, 120]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_renewal_leads_to_a_login_at_once() {
    let (_session, credentials) = session(vec![Ok(Some(90))], vec![Err(Code::PermissionDenied)]);
    pass(61).await;
    assert_eq!(credentials.seconds("login"), [0, 60]);
}

/// Renewals are tried until shortly before the token expires, and then logins. Both are spaced.
#[tokio::test(start_paused = true)]
async fn renews_and_logs_in_at_spaced_times_until_an_outage_ends() {
    let out = Err(Code::KeeperUnreachable);
    let logins = [vec![Ok(Some(30))], vec![out; 8], vec![Ok(Some(30))]].concat();
    let (session, credentials) = session(logins, vec![out]);
    pass(29).await;
    assert_eq!(credentials.seconds("renewal"), [20, 21, 23, 27]);
    session.token(late()).await.unwrap();
    pass(33).await;
    let logins = credentials.seconds("login");
    assert_eq!(logins, [0, 27, 28, 30, 34, 39, 44, 49, 54, 59]);
}

fn refusing(logins: Vec<Outcome>) -> (Arc<VaultSession>, Arc<Scripted>) {
    let credentials = Scripted { refuses: true, ..Scripted::new(logins, vec![]) };
    let credentials = Arc::new(credentials);
    (run(&credentials), credentials)
}

#[tokio::test(start_paused = true)]
async fn reports_a_refused_pair_at_once_and_tries_it_again_after_an_hour() {
    let (session, credentials) = refusing(vec![Err(Code::LoginRefused)]);
    assert_eq!(session.token(late()).await.unwrap_err().code(), Code::LoginRefused);
    pass(3_770).await;
    assert_eq!(credentials.seconds("login"), [0]);
    pass(20).await;
    // One hour plus half of the random tenth.
    assert_eq!(credentials.seconds("login"), [0, 3_780]);
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_changed_is_tried_at_once() {
    let (session, credentials) = refusing(vec![Err(Code::LoginRefused), Ok(None)]);
    assert!(session.token(late()).await.is_err());
    pass(100).await;
    credentials.change();
    pass(1).await;
    session.token(late()).await.unwrap();
    assert_eq!(credentials.seconds("login"), [0, 100]);
}

#[tokio::test(start_paused = true)]
async fn many_refused_requests_lead_to_one_login() {
    let (session, credentials) = session(vec![Ok(None)], vec![]);
    let held = session.token(late()).await.unwrap();
    pass(60).await;
    let refused = (0..100).map(|_| session.newer_than(held.generation, late()));
    for newer in futures_util::future::join_all(refused).await {
        assert_eq!(newer.unwrap().generation, held.generation + 1);
    }
    assert_eq!(credentials.seconds("login"), [0, 60]);
}

/// An expired token does not count as rejected, so the login follows at once.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_at_its_end_is_replaced_at_once() {
    let out = Err(Code::KeeperUnreachable);
    let logins = vec![Ok(Some(6)), out, Ok(Some(6))];
    let (session, credentials) = session(logins, vec![out]);
    let held = session.token(late()).await.unwrap();
    pass(6).await;
    let newer = session.newer_than(held.generation, late()).await;
    assert!(newer.is_ok_and(|held| held.generation == 2), "{:?}", credentials.log);
    pass(1).await;
    assert!(credentials.started.elapsed().as_secs() < 9);
}

#[tokio::test(start_paused = true)]
async fn spaces_logins_ever_further_while_new_tokens_are_rejected() {
    let (session, credentials) = session(vec![Ok(None)], vec![]);
    reject_every_token(&session);
    pass(200).await;
    assert_eq!(credentials.seconds("login"), [0, 1, 11, 31, 71, 131, 191]);
    let error = session.token(late()).await.unwrap_err();
    assert!(error.cause().contains("moments ago"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_token_that_cannot_be_replaced_fails_with_the_cause() {
    let (session, _) = session(vec![Ok(None), Err(Code::LoginRefused)], vec![]);
    let held = session.token(late()).await.unwrap();
    pass(60).await;
    let error = session.newer_than(held.generation, late()).await.unwrap_err();
    assert_eq!(error.code(), Code::LoginRefused);
    assert_eq!(session.token(late()).await.unwrap_err().code(), Code::LoginRefused);
}

#[tokio::test(start_paused = true)]
async fn uses_a_token_without_a_replacement_until_the_keeper_refuses_it() {
    let (session, credentials) = session(vec![Ok(Some(30)), Err(Code::LoginRefused)], vec![]);
    let held = session.token(late()).await.unwrap();
    pass(25).await;
    assert_eq!(credentials.seconds("login"), [0, 20]);
    assert_eq!(session.token(late()).await.unwrap().generation, held.generation);
    let error = session.newer_than(held.generation, late()).await.unwrap_err();
    assert_eq!(error.code(), Code::LoginRefused);
}

#[tokio::test(start_paused = true)]
async fn the_first_login_is_waited_for_until_the_deadline() {
    let credentials = Arc::new(Scripted::new(vec![Ok(None)], vec![]));
    let mut telemetry = MockTelemetry::new();
    telemetry.expect_record().returning(|_| ());
    let clock = Arc::new(Virtual(credentials.started));
    // The session does not run.
    let session =
        VaultSession::new(login(&credentials), Arc::<Virtual>::clone(&clock), Arc::new(telemetry));
    let error = session.token(clock.now().after(Duration::from_secs(2))).await.unwrap_err();
    assert_eq!(error.code(), Code::KeeperTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_not_about_the_pair_is_tried_again_within_a_minute() {
    let (_session, credentials) = session(vec![Err(Code::LoginRefused)], vec![]);
    pass(300).await;
    let logins = credentials.seconds("login");
    assert!(logins.windows(2).all(|pair| pair[1] - pair[0] <= 60), "{logins:?}");
    assert!(logins.len() >= 5, "{logins:?}");
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_changes_after_rejected_tokens_is_tried_at_once() {
    let (session, credentials) = session(vec![Ok(None)], vec![]);
    reject_every_token(&session);
    pass(40).await;
    credentials.change();
    pass(5).await;
    assert_eq!(credentials.seconds("login"), [0, 1, 11, 31, 40]);
}

fn slow(
    takes: u64,
    logins: Vec<Outcome>,
    renewals: Vec<Outcome>,
) -> (Arc<VaultSession>, Arc<Scripted>) {
    let takes = Duration::from_secs(takes);
    let credentials = Arc::new(Scripted { takes, ..Scripted::new(logins, renewals) });
    (run(&credentials), credentials)
}

/// Returns what a request of the API server that starts now gets, and after how many milliseconds.
async fn request(
    session: &VaultSession,
    started: Instant,
) -> (Result<SessionToken, KmsError>, u128) {
    let began = Instant::now();
    let deadline = Monotonic::at(started.elapsed()).after(Duration::from_millis(2_790));
    (session.token(deadline).await, began.elapsed().as_millis())
}

#[tokio::test(start_paused = true)]
async fn a_slow_login_succeeds_and_requests_fail_fast_with_the_cause_meanwhile() {
    let (session, credentials) = slow(4, vec![Ok(None)], vec![]);
    let (first, took) = request(&session, credentials.started).await;
    assert_eq!((first.unwrap_err().code(), took), (Code::KeeperTimeout, 2_000));
    pass(1).await;
    let (second, took) = request(&session, credentials.started).await;
    let error = second.unwrap_err();
    assert_eq!(took, 0);
    let cause = "no token from https://keeper:8200 yet: the login has taken 3.0 s so far";
    assert_eq!(error.cause(), cause);
    assert!(error.remedy().contains("--login-timeout"), "{error}");
    pass(2).await;
    let (third, took) = request(&session, credentials.started).await;
    assert_eq!((third.unwrap().generation, took), (1, 0));
    assert_eq!(credentials.seconds("login"), [0]);
}

/// `check` has more time than the API server gives.
#[tokio::test(start_paused = true)]
async fn a_caller_with_more_time_waits_for_a_slow_login() {
    let (session, _) = slow(4, vec![Ok(None)], vec![]);
    session.token(Monotonic::at(Duration::from_secs(10))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_fail_fast_when_the_replacement_of_a_refused_token_is_slow() {
    let (session, credentials) = slow(10, vec![Ok(None)], vec![]);
    let held = session.token(late()).await.unwrap();
    pass(60).await;
    let deadline = |secs| Monotonic::at(credentials.started.elapsed() + Duration::from_secs(secs));
    let error = session.newer_than(held.generation, deadline(2)).await.unwrap_err();
    assert!(error.cause().contains("so far"), "{error}");
    pass(3).await;
    let (refused, took) = request(&session, credentials.started).await;
    assert_eq!((refused.unwrap_err().code(), took), (Code::KeeperTimeout, 0));
    pass(8).await;
    assert_eq!(session.token(late()).await.unwrap().generation, held.generation + 1);
}

/// A renewal may take up to half of the remaining lifetime: here 8 s of 15 s.
#[tokio::test(start_paused = true)]
async fn a_slow_renewal_succeeds() {
    let (_session, credentials) = slow(8, vec![Ok(Some(90))], vec![Ok(Some(90))]);
    pass(150).await;
    assert_eq!(credentials.seconds("renewal"), [60, 120]);
    assert_eq!(credentials.seconds("login"), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_hangs_leaves_time_for_a_login() {
    let (_session, credentials) = slow(20, vec![Ok(Some(90))], vec![Ok(Some(90))]);
    pass(80).await;
    assert_eq!(credentials.seconds("renewal"), [60]);
    assert_eq!(credentials.seconds("login"), [0, 75]);
}

#[tokio::test(start_paused = true)]
async fn replaces_a_token_of_another_program_as_soon_as_its_file_changes() {
    let mut credentials = Scripted::new(vec![Ok(Some(3_600))], Vec::new());
    credentials.own = false;
    let credentials = Arc::new(credentials);
    let session = run(&credentials);
    let deadline = Monotonic::at(Duration::from_secs(5));
    let first = session.token(deadline).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    credentials.change();
    let second = async {
        while session.token(Monotonic::at(Duration::from_hours(1))).await.unwrap().generation
            == first.generation
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), second).await.unwrap();
    session.revoke().await;
    assert_eq!(
        (credentials.seconds("login"), credentials.seconds("revocation")),
        (vec![0, 100], vec![])
    );
}

#[tokio::test(start_paused = true)]
async fn keeps_its_own_token_when_the_credential_changes() {
    let (session, credentials) = session(vec![Ok(Some(3_600))], Vec::new());
    session.token(Monotonic::at(Duration::from_secs(5))).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    credentials.change();
    tokio::time::sleep(Duration::from_secs(100)).await;
    session.revoke().await;
    assert_eq!(
        (credentials.seconds("login"), credentials.seconds("revocation")),
        (vec![0], vec![200])
    );
}

/// A method whose material seems to change all the time. It counts the reads of its material.
#[derive(Debug)]
struct Restless {
    /// The material of every read. `None` means that it cannot be read.
    material: Option<Vec<Material>>,
    /// The result of every login.
    outcome: Result<Lease, LoginFailure>,
    reads: AtomicU64,
}

impl Restless {
    /// The largest number of reads, so that a test fails and does not run forever.
    const READS_MAX: u64 = 1_000;

    fn new(material: Option<Vec<Material>>, outcome: Result<Lease, LoginFailure>) -> Self {
        Self { material, outcome, reads: AtomicU64::new(0) }
    }
}

#[async_trait]
impl LoginMethod for Restless {
    async fn materials(&self) -> Result<Vec<Material>, KmsError> {
        let before = self.reads.fetch_add(1, Ordering::Relaxed);
        assert!(before < Self::READS_MAX, "the material is read in a loop without a wait");
        self.material
            .clone()
            .ok_or_else(|| KmsError::new(Code::CredentialUnreadable, "scripted", "none"))
    }
    async fn login(&self, _: &Material) -> Result<Lease, LoginFailure> {
        self.outcome.clone()
    }
    async fn changed(&self) {}
}

/// Whatever a method does, its material is read about once a second at most.
#[tokio::test(start_paused = true)]
async fn reads_the_material_of_a_restless_method_at_spaced_times() {
    let material = || {
        let digest = CredentialDigest::NONE.with("restless");
        let role = Secret::new(String::new());
        Some(vec![Material { digest, role, secret: LoginSecret::NotNeeded }])
    };
    let lease = |ends_with_credential| {
        let token = Secret::new("token".to_owned());
        Ok(Lease { token, ttl: None, renewable: false, own: true, ends_with_credential })
    };
    let error = || KmsError::new(Code::LoginRefused, "scripted", "none");
    for (case, method) in [
        ("its material cannot be read", Restless::new(None, lease(false))),
        ("it has no material", Restless::new(Some(Vec::new()), lease(false))),
        ("it is refused", Restless::new(material(), Err(LoginFailure::Refused(error())))),
        ("it fails", Restless::new(material(), Err(LoginFailure::Failed(error())))),
        ("its token outlives the credential", Restless::new(material(), lease(false))),
        ("its token ends with the credential", Restless::new(material(), lease(true))),
    ] {
        let method = Arc::new(method);
        let scripted = Arc::new(Scripted::new(vec![Ok(None)], vec![]));
        let login = Login { method: Arc::<Restless>::clone(&method), ..login(&scripted) };
        let mut telemetry = MockTelemetry::new();
        telemetry.expect_record().returning(|_| ());
        let clock = Arc::new(Virtual(scripted.started));
        let session = VaultSession::new(login, clock, Arc::new(telemetry));
        let running = tokio::spawn(async move { session.run().await });
        pass(10).await;
        assert!(!running.is_finished(), "{case}: the session ended");
        running.abort();
        let reads = method.reads.load(Ordering::Relaxed);
        // A login that is due is one more read.
        assert!((2..=22).contains(&reads), "{case}: {reads} reads in 10 s");
    }
}
