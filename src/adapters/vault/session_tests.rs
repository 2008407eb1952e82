use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;

use super::*;
use crate::{domain::time::UnixTime, ports::telemetry::MockTelemetry};

/// A clock on which up to half a minute passes at once, and longer waits never end.
#[derive(Debug)]
struct Hasty;

#[async_trait]
impl Clock for Hasty {
    fn now(&self) -> Monotonic {
        Monotonic::default()
    }
    fn wall(&self) -> UnixTime {
        UnixTime::default()
    }
    fn jitter(&self) -> f64 {
        0.5
    }
    async fn sleep(&self, wait: Duration) {
        if wait > Duration::from_secs(30) {
            pending::<()>().await;
        }
        tokio::task::yield_now().await;
    }
}

/// Credentials that give what `outcomes` say, in order, and the last one for ever.
#[derive(Debug)]
struct Scripted {
    outcomes: Vec<Result<Option<u64>, Code>>,
    logins: AtomicU32,
}

#[async_trait]
impl Credentials for Scripted {
    async fn login(&self) -> Result<Lease, KmsError> {
        let number = self.logins.fetch_add(1, Ordering::SeqCst);
        let last = self.outcomes.last().unwrap();
        match self.outcomes.get(usize::try_from(number).unwrap()).unwrap_or(last) {
            Ok(ttl) => Ok(Lease {
                token: Secret::new(format!("token-{number}")),
                ttl: ttl.map(Duration::from_secs),
                renewable: false,
            }),
            Err(code) => Err(KmsError::new(*code, "scripted", "none")),
        }
    }
    async fn renew(&self, _: &Secret) -> Result<Lease, KmsError> {
        Err(KmsError::new(Code::PermissionDenied, "scripted", "none"))
    }
    async fn changed(&self) {
        pending::<()>().await;
    }
    async fn revoke(&self, _: &Secret) -> Result<(), KmsError> {
        Ok(())
    }
}

fn session(outcomes: Vec<Result<Option<u64>, Code>>) -> (Arc<Session>, Arc<Scripted>) {
    let credentials = Arc::new(Scripted { outcomes, logins: AtomicU32::new(0) });
    let mut telemetry = MockTelemetry::new();
    telemetry.expect_record().returning(|_| ());
    let session =
        Session::new(Arc::<Scripted>::clone(&credentials), Arc::new(Hasty), Arc::new(telemetry));
    let session = Arc::new(session);
    let running = Arc::clone(&session);
    tokio::spawn(async move { running.run().await });
    (session, credentials)
}

/// A deadline that the hasty clock never reaches.
fn late() -> Monotonic {
    Monotonic::at(Duration::from_hours(1))
}

/// What comes after the session's rest.
async fn settled(session: &Session, generation: u64) -> Result<Held, KmsError> {
    loop {
        match session.newer_than(generation, late()).await {
            Err(error) if error.code() == Code::KeeperFailed => tokio::task::yield_now().await,
            result => return result,
        }
    }
}

#[tokio::test]
async fn an_outage_is_outlasted() {
    let outage = Err(Code::KeeperUnreachable);
    let (session, credentials) = session(vec![outage, outage, outage, Ok(None)]);
    while session.token(late()).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(credentials.logins.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_refused_login_is_told_at_once_and_not_repeated() {
    let (session, credentials) = session(vec![Err(Code::LoginRefused)]);
    for _ in 0..50 {
        let error = session.token(late()).await.unwrap_err();
        assert_eq!(error.code(), Code::LoginRefused);
        tokio::task::yield_now().await;
    }
    assert_eq!(credentials.logins.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_dead_token_is_replaced_once_for_all() {
    let (session, credentials) = session(vec![Ok(None)]);
    let held = session.token(late()).await.unwrap();
    for _ in 0..10 {
        // On this clock the token dies at its birth, so the session rests before the next login.
        let newer = settled(&session, held.generation).await.unwrap();
        assert_eq!(newer.generation, 2);
    }
    assert_eq!(credentials.logins.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_dead_token_that_cannot_be_replaced_fails_with_the_cause() {
    let (session, _) = session(vec![Ok(None), Err(Code::LoginRefused)]);
    let held = session.token(late()).await.unwrap();
    let error = settled(&session, held.generation).await.unwrap_err();
    assert_eq!(error.code(), Code::LoginRefused);
    assert_eq!(session.token(late()).await.unwrap_err().code(), Code::LoginRefused);
}

#[tokio::test]
async fn a_worn_token_serves_until_the_keeper_refuses_it() {
    // 30 s is short enough to be worn at once on this clock; the second login is refused.
    let (session, credentials) = session(vec![Ok(Some(30)), Err(Code::LoginRefused)]);
    let held = session.token(late()).await.unwrap();
    while credentials.logins.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        tokio::task::yield_now().await;
        assert_eq!(session.token(late()).await.unwrap().generation, held.generation);
    }
    let error = session.newer_than(held.generation, late()).await.unwrap_err();
    assert_eq!(error.code(), Code::LoginRefused);
}
