//! Logins, renewals and unwraps against the stand-in: the result of each answer.

use std::{path::Path, time::Duration};

use vault_kube_kms::{
    adapters::vault::{
        address::VaultAddress,
        login::{method::MethodSettings, token_file::TokenFileSettings},
        vocabulary::{WRAPPING_TOKEN_LEFT, WRAPPING_TOKEN_USED},
    },
    domain::error::KmsError,
    testkit::Subject as _,
};

use crate::{
    stand_in::{SOON, within},
    support::{
        admin::Admin,
        stand_in::{Fault, StandIn},
        transit::{TransitSubject, Wiring},
    },
};

const LOGIN: &str = "auth/approle/login";
const LOOKUP: &str = "sys/wrapping/lookup";
const UNWRAP: &str = "sys/wrapping/unwrap";
const WRAPPED_AT: &str = "auth/approle/role/r/custom-secret-id";

fn subject(stand_in: &StandIn, change: impl FnOnce(&mut Wiring)) -> TransitSubject {
    let admin = Admin::new(&stand_in.address, "unused", Some(stand_in.ca.clone()));
    TransitSubject::with(admin, stand_in.provisioned.clone(), change)
}

/// Makes a stand-in whose secret ID is wrapped, and a keeper with the wrapping token.
async fn wrapped(faults: &[(&str, Fault)]) -> (StandIn, TransitSubject) {
    let stand_in = StandIn::start().await;
    let token = "wrapping-token-canary".to_owned();
    let at = WRAPPED_AT.to_owned();
    stand_in.shared.engine.lock().unwrap().wrapping = Some((token.clone(), at));
    for (path, fault) in faults {
        stand_in.fail_next(1, path, fault);
    }
    let admin = Admin::new(&stand_in.address, "unused", Some(stand_in.ca.clone()));
    let mut provisioned = stand_in.provisioned.clone();
    provisioned.secret_id = token;
    let subject = TransitSubject::with(admin, provisioned, |wiring| {
        wiring.approle().secret_id_wrapped = true;
    });
    (stand_in, subject)
}

/// Waits until the key can be read.
async fn heals(subject: &TransitSubject, most: Duration) {
    let healed = async {
        while subject.kek.describe(within(subject, SOON)).await.is_err() {
            subject.clock().sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(most, healed).await.expect("it heals");
}

/// Waits until reads of the key fail with an `expected` error, and returns it.
async fn told(subject: &TransitSubject, expected: fn(&KmsError) -> bool) -> KmsError {
    let told = async {
        loop {
            let error = subject.kek.describe(within(subject, SOON)).await.unwrap_err();
            if expected(&error) {
                return error;
            }
            subject.clock().sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), told).await.expect("it is told")
}

#[tokio::test]
async fn a_login_that_takes_four_seconds_succeeds_and_leaves_no_token_behind() {
    let stand_in = StandIn::start().await;
    stand_in.fail_next(1, LOGIN, &Fault::Delay(Duration::from_secs(4)));
    let subject = subject(&stand_in, |_| ());
    heals(&subject, Duration::from_secs(15)).await;
    assert_eq!(stand_in.requests_for(LOGIN), 1);
    assert_eq!(stand_in.shared.engine.lock().unwrap().live_tokens(), 1);
}

/// The token of an abandoned login is revoked when it arrives.
#[tokio::test]
async fn revokes_a_token_that_comes_after_the_time_out() {
    let stand_in = StandIn::start().await;
    stand_in.fail_next(1, LOGIN, &Fault::Delay(Duration::from_millis(1_500)));
    let subject = subject(&stand_in, |wiring| {
        wiring.login.timeout = Duration::from_secs(1);
    });
    let error = subject.kek.describe(within(&subject, SOON)).await.unwrap_err();
    assert!(error.to_string().contains("--login-timeout"), "{error}");
    heals(&subject, Duration::from_secs(10)).await;
    let revoked = async {
        while stand_in.requests_for("auth/token/revoke-self") == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), revoked).await.expect("it is revoked");
}

/// A refused credential must not be sent again, and a login that was given up cannot know that the
/// next one was refused.
#[tokio::test]
async fn a_login_that_was_given_up_sends_nothing_more() {
    let one = StandIn::start().await;
    let two = one.node().await;
    one.fail_next(1_000, LOGIN, &Fault::Hang);
    let addresses = [&one, &two].map(|node| VaultAddress::parse(&node.address).unwrap());
    let subject = subject(&one, |wiring| {
        wiring.servers.addresses = addresses.to_vec();
        wiring.login.timeout = Duration::from_secs(2);
    });
    told(&subject, |error| error.cause().contains("no answer to a login")).await;
    // Ends the connections of the login that was given up, and of the next one.
    drop(one);
    heals(&subject, Duration::from_secs(20)).await;
    assert_eq!(two.requests_for(LOGIN), 1, "only the next login goes on at the other endpoint");
}

/// A login that was given up may be refused after the next login has succeeded.
#[tokio::test]
async fn a_refusal_that_arrives_after_a_newer_login_holds_nothing_back() {
    let stand_in = StandIn::start().await;
    let refusal = r#"{"errors":["invalid role or secret ID"]}"#;
    stand_in.fail_next(1, LOGIN, &Fault::Held(400, refusal.to_owned()));
    let subject = subject(&stand_in, |wiring| wiring.login.timeout = Duration::from_secs(10));
    heals(&subject, Duration::from_secs(60)).await;
    let logins = stand_in.requests_for(LOGIN);
    stand_in.release().await;
    stand_in.expire_tokens();
    heals(&subject, Duration::from_secs(30)).await;
    assert_eq!(stand_in.requests_for(LOGIN), logins + 1);
}

/// An unwrap to which no answer came may reach the keeper late, after a lookup found the token valid.
#[tokio::test]
async fn a_token_that_is_used_after_a_lost_unwrap_is_not_called_stolen() {
    let (stand_in, subject) = wrapped(&[]).await;
    stand_in.fail_next(1_000, UNWRAP, &Fault::Reset);
    let looked_up_later = async {
        while stand_in.requests_for(UNWRAP) == 0 || stand_in.requests_for(LOOKUP) < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looked_up_later).await.expect("it is looked up");
    stand_in.shared.engine.lock().unwrap().wrapping = None;
    let error = told(&subject, |error| error.code() == WRAPPING_TOKEN_USED).await;
    assert!(error.cause().contains("by a late request"), "{error}");
    assert!(error.remedy().contains("revoke the secret ID if another process"), "{error}");
}

#[tokio::test]
async fn tokens_of_few_uses_are_revoked_and_the_role_is_tried_again() {
    let stand_in = StandIn::start().await;
    stand_in.shared.engine.lock().unwrap().token_num_uses = 10;
    let subject = subject(&stand_in, |_| ());
    let error = subject.kek.describe(within(&subject, SOON)).await.unwrap_err();
    assert!(error.remedy().contains("token_num_uses=0"), "{error}");
    assert_eq!(stand_in.shared.engine.lock().unwrap().live_tokens(), 0);
    stand_in.shared.engine.lock().unwrap().token_num_uses = 0;
    heals(&subject, Duration::from_secs(15)).await;
}

/// The keeper did not check the pair, so a later try may succeed.
#[tokio::test]
async fn tries_again_after_a_refusal_that_is_not_about_the_pair() {
    for (status, text) in [
        (400, "source address \"1.2.3.4\" unauthorized through CIDR restrictions on the secret ID"),
        (403, "permission denied"),
        (404, "no handler for route \"auth/approle/login\". route entry not found."),
    ] {
        let stand_in = StandIn::start().await;
        stand_in.fail_next(1, LOGIN, &Fault::error(status, text));
        let subject = subject(&stand_in, |_| ());
        subject.kek.describe(within(&subject, SOON)).await.unwrap_err();
        heals(&subject, Duration::from_secs(15)).await;
        // A 403 has no reason in it, so one more request asks whether the mount exists.
        let asked = if status == 403 { 3 } else { 2 };
        assert_eq!(stand_in.requests_for(LOGIN), asked, "{text}");
    }
}

#[tokio::test]
async fn a_wrapped_custom_secret_id_is_unwrapped() {
    let (_stand_in, subject) = wrapped(&[]).await;
    subject.kek.describe(within(&subject, SOON)).await.unwrap();
}

/// Gives `stand_in` a wrapping token. Returns a function that starts a provider with this token and this
/// cache.
fn starts_with_a_wrapping_token(stand_in: &StandIn, cache: &Path) -> impl Fn() -> TransitSubject {
    let token = "wrapping-token-canary".to_owned();
    let wrapping = Some((token.clone(), WRAPPED_AT.to_owned()));
    stand_in.shared.engine.lock().unwrap().wrapping = wrapping;
    let mut provisioned = stand_in.provisioned.clone();
    provisioned.secret_id = token;
    let (address, ca, cache) = (stand_in.address.clone(), stand_in.ca.clone(), cache.to_owned());
    move || {
        let admin = Admin::new(&address, "unused", Some(ca.clone()));
        TransitSubject::with(admin, provisioned.clone(), |wiring| {
            let approle = wiring.approle();
            (approle.secret_id_wrapped, approle.secret_id_cache) = (true, Some(cache.clone()));
        })
    }
}

/// The provider may have used the token itself, before a restart.
#[tokio::test]
async fn a_used_token_raises_no_alarm_while_the_cache_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let stand_in = StandIn::start().await;
    let start = starts_with_a_wrapping_token(&stand_in, &cache);
    heals(&start(), Duration::from_secs(30)).await;
    let readable_by_all = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&cache, readable_by_all).unwrap();
    let restarted = start();
    let error = told(&restarted, |error| error.code() == WRAPPING_TOKEN_USED).await;
    assert!(error.cause().contains("--approle-secret-id-cache"), "{error}");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&cache, private).unwrap();
    heals(&restarted, Duration::from_secs(60)).await;
}

/// The answer to an unwrap comes only once. Without it, the next start would take its own unwrap for a
/// theft.
#[tokio::test]
async fn a_stop_during_an_unwrap_does_not_lose_the_secret_id() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let stand_in = StandIn::start().await;
    let start = starts_with_a_wrapping_token(&stand_in, &cache);
    stand_in.fail_next(1, UNWRAP, &Fault::Delay(Duration::from_millis(300)));
    let stopped = start();
    let unwrapping = async {
        while stand_in.requests_for(UNWRAP) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(stopped);
        while !cache.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), unwrapping).await.expect("it is in the cache");
    heals(&start(), Duration::from_secs(30)).await;
    assert_eq!(stand_in.requests_for(UNWRAP), 1);
}

/// A program that does not serve, such as `check`, leaves the token to the provider.
#[tokio::test]
async fn only_a_process_that_serves_uses_up_a_wrapping_token() {
    for (created_at, is_approle) in [(WRAPPED_AT, true), ("sys/wrapping/wrap", false)] {
        let stand_in = StandIn::start().await;
        let token = "wrapping-token-canary".to_owned();
        let wraps = |token: String| {
            let wrapping = Some((token, created_at.to_owned()));
            stand_in.shared.engine.lock().unwrap().wrapping = wrapping;
        };
        wraps(token.clone());
        let admin = Admin::new(&stand_in.address, "unused", Some(stand_in.ca.clone()));
        let mut provisioned = stand_in.provisioned.clone();
        provisioned.secret_id = token;
        let subject = TransitSubject::with(admin, provisioned, |wiring| {
            wiring.serves = false;
            let approle = wiring.approle();
            approle.secret_id_wrapped = true;
            let path = approle.secret_id_path.clone().unwrap();
            if !is_approle {
                let token_file = TokenFileSettings { path, wrapped: true, renew: false };
                wiring.login.method = MethodSettings::TokenFile(token_file);
            }
        });
        let error = subject.kek.describe(within(&subject, SOON)).await.unwrap_err();
        assert_eq!(error.code(), WRAPPING_TOKEN_LEFT, "{error}");
        assert_eq!(error.remedy().contains("--approle-secret-id-wrapped"), is_approle, "{error}");
        assert_eq!(stand_in.requests_for(UNWRAP), 0, "{created_at}");

        // A used token is named as such, also for a program that does not serve.
        wraps("another-canary".to_owned());
        let error = told(&subject, |error| error.code() == WRAPPING_TOKEN_USED).await;
        assert!(error.remedy().contains("revoke what it wrapped"), "{error}");
    }
}

/// An answer of a proxy in place of the keeper does not mean a stolen token.
#[tokio::test]
async fn tries_again_after_a_proxys_page_about_a_wrapping_token() {
    let page = |status| Fault::Says(status, "<html>no backend</html>".to_owned());
    for (path, fault) in [
        (LOOKUP, page(403)),
        (LOOKUP, page(404)),
        (LOOKUP, page(200)),
        (UNWRAP, page(403)),
        (UNWRAP, page(502)),
        (UNWRAP, Fault::Reset),
    ] {
        let (stand_in, subject) = wrapped(&[(path, fault.clone())]).await;
        // A lookup is repeated at once. An unwrap is repeated after a new lookup of the token.
        let described = subject.kek.describe(within(&subject, SOON)).await;
        let code = described.err().map(|error| error.code());
        assert_ne!(code, Some(WRAPPING_TOKEN_USED), "{path} {fault:?}");
        heals(&subject, Duration::from_secs(15)).await;
        assert_eq!(stand_in.requests_for(LOGIN), 1, "{path} {fault:?}");
    }
}

#[tokio::test]
async fn reports_a_used_wrapping_token_and_does_not_send_it_again() {
    for fault in [None, Some(Fault::ResetAfter)] {
        let faults: Vec<_> = fault.iter().map(|fault| (UNWRAP, fault.clone())).collect();
        let (stand_in, subject) = wrapped(&faults).await;
        if fault.is_none() {
            stand_in.shared.engine.lock().unwrap().wrapping = None;
        }
        for _ in 0..3 {
            let error = subject.kek.describe(within(&subject, SOON)).await.unwrap_err();
            assert_eq!(error.code(), WRAPPING_TOKEN_USED, "{fault:?}: {error}");
        }
        let unwraps = u64::from(fault.is_some());
        let asked = (stand_in.requests_for(LOOKUP), stand_in.requests_for(UNWRAP));
        assert_eq!(asked, (1 + unwraps, unwraps), "{fault:?}");
    }
}

/// Returns faults that lose the answer to the first unwrap. The next look-ups, `count` in number,
/// find a sealed keeper.
fn lost_in_an_outage(lost: Fault, count: usize) -> Vec<(&'static str, Fault)> {
    let no_fault = Fault::Delay(Duration::ZERO);
    let sealed = std::iter::repeat_n((LOOKUP, Fault::sealed()), count);
    [(LOOKUP, no_fault), (UNWRAP, lost)].into_iter().chain(sealed).collect()
}

/// A failed look-up does not say that the token was used.
#[tokio::test]
async fn uses_a_wrapping_token_after_an_outage_that_began_during_its_unwrap() {
    for lost in [Fault::Reset, Fault::html_502(), Fault::error(500, "internal error")] {
        let (stand_in, subject) = wrapped(&lost_in_an_outage(lost.clone(), 6)).await;
        let error = subject.kek.describe(within(&subject, SOON)).await.unwrap_err();
        assert_ne!(error.code(), WRAPPING_TOKEN_USED, "{lost:?}: {error}");
        heals(&subject, Duration::from_secs(30)).await;
        let sent = (stand_in.requests_for(UNWRAP), stand_in.requests_for(LOGIN));
        assert_eq!(sent, (2, 1), "{lost:?}");
    }
}

/// The provider itself used up the token, so the error names the lost answer.
#[tokio::test]
async fn names_the_lost_answer_when_the_outage_ends_and_the_token_is_used() {
    for count in [0, 6] {
        let (stand_in, subject) = wrapped(&lost_in_an_outage(Fault::ResetAfter, count)).await;
        let error = told(&subject, |error| error.code() == WRAPPING_TOKEN_USED).await;
        assert!(error.cause().contains("the answer was lost"), "{error}");
        assert_eq!(stand_in.requests_for(UNWRAP), 1);
    }
}
