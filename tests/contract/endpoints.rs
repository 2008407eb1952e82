//! Several endpoints of one cluster: failover, membership, redirections.

use std::time::Duration;

use vault_kube_kms::{
    adapters::vault::{address::VaultAddress, vocabulary::CLUSTER_FOREIGN},
    domain::{
        envelope::{Annotations, AssociatedData},
        error::Code,
        key::KekVersion,
        secret::Plaintext,
        time::CALL_BUDGET,
    },
};

use crate::{
    stand_in::{SOON, within},
    support::{
        admin::Admin,
        stand_in::{Fault, StandIn},
        transit::TransitSubject,
    },
};

const READ: &str = "transit/keys/k1";
const WRAP: &str = "transit/encrypt/k1";

/// Makes a keeper with all of these endpoints, in this order.
fn subject_of(nodes: &[&StandIn]) -> TransitSubject {
    let first = nodes[0];
    let admin = Admin::new(&first.address, "unused", Some(first.ca.clone()));
    let addresses = nodes.iter().map(|node| VaultAddress::parse(&node.address).unwrap()).collect();
    TransitSubject::with(admin, first.provisioned.clone(), |wiring| {
        wiring.servers.addresses = addresses;
    })
}

/// Sends a request to one endpoint, or to as many as it needs.
async fn wraps(subject: &TransitSubject, wait: Duration) -> Result<(), Code> {
    wraps_with(subject, KekVersion::FIRST, wait).await
}

fn bound() -> AssociatedData {
    AssociatedData::binding("id", &Annotations::ours())
}

async fn wraps_with(
    subject: &TransitSubject,
    version: KekVersion,
    wait: Duration,
) -> Result<(), Code> {
    let seed = Plaintext::new(vec![7; 32]);
    let wrapped = subject.kek.wrap(version, &seed, &bound(), within(subject, wait)).await;
    wrapped.map(drop).map_err(|error| error.code())
}

/// A node that lags and does not reach its leader cannot forward, and the others can answer.
#[tokio::test]
async fn another_endpoint_answers_while_one_has_not_caught_up() {
    for status in [412, 429] {
        let one = StandIn::start().await;
        let two = one.node().await;
        let subject = subject_of(&[&one, &two]);
        wraps(&subject, SOON).await.unwrap();
        let lags = Some(Fault::Says(status, r#"{"errors":[]}"#.to_owned()));
        one.set_fault(lags.clone());
        for _ in 0..3 {
            wraps(&subject, SOON).await.unwrap_or_else(|code| panic!("{status}: {code}"));
        }
        two.set_fault(lags);
        let code = wraps(&subject, SOON).await.unwrap_err();
        assert_eq!(code, Code::KeeperFailed, "{status} is not a quota");
    }
}

#[tokio::test]
async fn prefers_another_endpoint_after_one_fails() {
    for fault in [Fault::Reset, Fault::html_502(), Fault::sealed(), Fault::Hang] {
        let one = StandIn::start().await;
        let two = one.node().await;
        let subject = subject_of(&[&one, &two]);
        wraps(&subject, SOON).await.unwrap();
        assert_eq!(two.requests_for(WRAP), 0, "the first one is asked first");
        one.set_fault(Some(fault.clone()));
        for _ in 0..5 {
            wraps(&subject, SOON).await.unwrap_or_else(|code| panic!("{fault:?}: {code}"));
        }
        assert_eq!(two.requests_for(WRAP), 5, "{fault:?}");
        let asked = one.requests_for(WRAP);
        assert_eq!(asked, 2, "{fault:?}: the one that answered is asked first from then on");
    }
}

#[tokio::test]
async fn a_hung_endpoint_leaves_time_for_another_within_one_call() {
    let one = StandIn::start().await;
    let two = one.node().await;
    let subject = subject_of(&[&one, &two]);
    wraps(&subject, SOON).await.unwrap();
    one.set_fault(Some(Fault::Hang));
    wraps(&subject, Duration::from_millis(2_800)).await.expect("by the other one");
}

#[tokio::test]
async fn rejects_an_endpoint_of_another_cluster() {
    let one = StandIn::start().await;
    let foreign = one.foreign_node().await;
    let subject = subject_of(&[&one, &foreign]);
    wraps(&subject, SOON).await.unwrap();
    one.set_fault(Some(Fault::sealed()));
    // Its key of the same name is another key.
    for _ in 0..5 {
        let code = wraps(&subject, SOON).await.unwrap_err();
        assert!(matches!(code, CLUSTER_FOREIGN | Code::KeeperSealed), "{code}");
    }
    assert_eq!(foreign.requests_for(WRAP), 0);
    assert!(foreign.requests_for("sys/health") > 0);
    one.set_fault(None);
    crate::stand_in::heals(&subject).await;
}

/// Regression: the first endpoint that answered a health check became the cluster of this process.
#[tokio::test]
async fn an_endpoint_that_refuses_the_first_login_does_not_decide_the_cluster() {
    for refusal in
        [Fault::error(400, "invalid role or secret ID"), Fault::error(403, "permission denied")]
    {
        let one = StandIn::start().await;
        let foreign = one.foreign_node().await;
        foreign.lead(true);
        foreign.fail_next(1_000, "auth/approle/login", &refusal);
        let subject = subject_of(&[&foreign, &one]);
        crate::stand_in::heals(&subject).await;
        let code = |n: usize| subject.client.endpoints()[n].last_error.as_ref().map(|e| e.code());
        assert_eq!((code(0), code(1)), (Some(CLUSTER_FOREIGN), None), "{refusal:?}");
        one.expire_tokens();
        crate::stand_in::heals(&subject).await;
        assert_eq!(foreign.requests_for("auth/approle/login"), 1, "{refusal:?}");
        assert_eq!((foreign.requests_for(READ), foreign.requests_for(WRAP)), (0, 0), "{refusal:?}");
    }
}

#[tokio::test]
async fn follows_a_redirection_once_and_only_to_a_configured_endpoint() {
    let one = StandIn::start().await;
    let (two, other) = (one.node().await, one.node().await);
    let subject = subject_of(&[&one, &two]);
    wraps(&subject, SOON).await.unwrap();
    one.fail_next(1, WRAP, &Fault::Redirect(two.address.clone()));
    wraps(&subject, SOON).await.unwrap();
    assert_eq!(two.requests_for(WRAP), 1);

    // Not to a third server, even of the same cluster, because it would get the token.
    one.set_fault(Some(Fault::Redirect(other.address.clone())));
    two.set_fault(Some(Fault::Redirect(other.address.clone())));
    assert_eq!(wraps(&subject, SOON).await, Err(Code::KeeperFailed));
    assert_eq!(other.requests_for(WRAP), 0);

    // Redirections in a circle end after a few tries, as in an election.
    one.set_fault(Some(Fault::Redirect(two.address.clone())));
    two.set_fault(Some(Fault::Redirect(one.address.clone())));
    let before = one.requests_for(WRAP) + two.requests_for(WRAP);
    assert_eq!(wraps(&subject, SOON).await, Err(Code::KeeperFailed));
    assert!((3..=6).contains(&(one.requests_for(WRAP) + two.requests_for(WRAP) - before)));
}

/// An endpoint without `sys/health`, such as a proxy, never counts as a member of the cluster.
#[tokio::test]
async fn sends_nothing_to_an_endpoint_without_a_cluster_id() {
    for status in [400, 403, 404, 429] {
        let one = StandIn::start().await;
        let two = one.node().await;
        two.fail_next(1_000, "", &Fault::Says(status, "<html></html>".to_owned()));
        let subject = subject_of(&[&one, &two]);
        wraps(&subject, SOON).await.unwrap();
        one.fail_next(1, WRAP, &Fault::Reset);
        wraps(&subject, SOON).await.unwrap_or_else(|code| panic!("{status}: {code}"));
        assert_eq!(two.requests_for(WRAP), 0, "{status}");
        let asked = one.requests_for(WRAP);
        wraps(&subject, SOON).await.unwrap();
        assert_eq!(one.requests_for(WRAP), asked + 1, "{status}: it is still asked first");
    }
}

/// A node that never learns of a key version causes no failure while another node knows the
/// version.
#[tokio::test]
async fn asks_another_node_for_a_version_that_one_node_lacks() {
    let (one, two, subject, newest) = with_a_stale_node().await;
    for _ in 0..3 {
        wraps_with(&subject, newest, SOON).await.unwrap();
    }
    assert_eq!((one.requests_for(WRAP), two.requests_for(WRAP)), (1, 3), "two is asked first");
}

/// Otherwise a new provider would not see new versions, and a provider that knows them would
/// report a rollback.
#[tokio::test]
async fn a_stale_node_does_not_hide_a_version_that_another_one_knows() {
    let (one, two, subject, newest) = with_a_stale_node().await;
    let latest = async || {
        let described = subject.kek.describe(within(&subject, SOON)).await;
        described.unwrap().latest
    };
    // A late answer does not count, so a busy machine may need more than one read.
    tokio::time::timeout(SOON, async { while latest().await != newest {} }).await.unwrap();
    // Also a read for a Decrypt: another provider may have written with a version that this node
    // lacks.
    latest().await;
    assert_eq!(one.requests_for(READ), two.requests_for(READ));
    assert!(subject.client.endpoints()[0].preferred, "being asked beside does not change that");
}

/// The first of two endpoints never learns of the newest key version.
async fn with_a_stale_node() -> (StandIn, StandIn, TransitSubject, KekVersion) {
    let one = StandIn::start().await;
    let two = one.node().await;
    one.learn_no_more();
    two.rotate();
    let subject = subject_of(&[&one, &two]);
    (one, two, subject, KekVersion::new(2).unwrap())
}

#[tokio::test]
async fn reads_the_key_although_a_node_hangs() {
    let one = StandIn::start().await;
    let (two, three) = (one.node().await, one.node().await);
    let subject = subject_of(&[&one, &two, &three]);
    wraps(&subject, SOON).await.unwrap();
    for fault in [Fault::Hang, Fault::Reset, Fault::sealed(), Fault::nonsense()] {
        two.set_fault(Some(fault.clone()));
        // Its share of the time, and its own time limit, are longer than that.
        let described = subject.kek.describe(within(&subject, 2 * SOON));
        let described = tokio::time::timeout(Duration::from_millis(1_700), described).await;
        assert!(matches!(described, Ok(Ok(_))), "{fault:?}: {described:?}");
    }
    one.set_fault(Some(Fault::Hang));
    two.set_fault(Some(Fault::Hang));
    let described = subject.kek.describe(within(&subject, SOON)).await;
    assert!(described.is_ok(), "by the third one: {described:?}");
}

/// A firewall can cut off all servers but one, before the first login or later.
#[tokio::test]
async fn finds_the_only_one_of_eight_endpoints_that_answers() {
    let last = StandIn::start().await;
    let mut hanging = Vec::new();
    for _ in 0..7 {
        hanging.push(last.node().await);
    }
    let all: Vec<_> = hanging.iter().chain([&last]).collect();
    for logged_in in [false, true] {
        hanging.iter().for_each(|node| node.set_fault(None));
        let subject = subject_of(&all);
        if logged_in {
            wraps(&subject, SOON).await.unwrap();
        }
        hanging.iter().for_each(|node| node.set_fault(Some(Fault::Hang)));
        let asked = || hanging.iter().map(|node| node.requests_for(WRAP)).sum::<u64>();
        let found = async { while wraps(&subject, CALL_BUDGET).await.is_err() {} };
        tokio::time::timeout(Duration::from_mins(1), found).await.expect("the last one is found");
        let before = asked();
        wraps(&subject, CALL_BUDGET).await.unwrap();
        assert_eq!(asked(), before, "the endpoint that answers is asked first");
    }
}

/// A former leader answers in this way for a short time, while other nodes serve already.
#[tokio::test]
async fn a_node_without_a_leader_causes_no_failure() {
    for fault in [
        Fault::error(500, "local node not active but active cluster node not found"),
        Fault::error(500, "internal error"),
        Fault::redirect_elsewhere(),
    ] {
        let one = StandIn::start().await;
        let two = one.node().await;
        let subject = subject_of(&[&one, &two]);
        wraps(&subject, SOON).await.unwrap();
        one.set_fault(Some(fault.clone()));
        wraps(&subject, SOON).await.unwrap_or_else(|code| panic!("{fault:?}: {code}"));
    }
}

/// A standby may not know a new token yet. A refusal counts only if all endpoints refuse.
#[tokio::test]
async fn sends_a_token_that_one_node_does_not_know_to_another() {
    let one = StandIn::start().await;
    let two = one.node().await;
    let subject = subject_of(&[&one, &two]);
    one.fail_next(1, WRAP, &Fault::error(403, "permission denied"));
    wraps(&subject, SOON).await.unwrap();
    let logins = || one.requests_for("auth/approle/login") + two.requests_for("auth/approle/login");
    assert_eq!((logins(), two.requests_for(WRAP)), (1, 1));
    one.expire_tokens();
    works_again(&subject).await;
    assert_eq!(logins(), 2);
}

/// The next login follows at once, or a second later if the last token was new.
async fn works_again(subject: &TransitSubject) {
    tokio::time::timeout(SOON, async { while wraps(subject, SOON).await.is_err() {} })
        .await
        .expect("with a new token");
}

/// A refusal because of a stored object says nothing about the token: the second node accepts the
/// token.
#[tokio::test]
async fn a_refusal_by_a_node_that_accepts_the_token_is_not_about_the_token() {
    let one = StandIn::start().await;
    let two = one.node().await;
    let subject = subject_of(&[&one, &two]);
    one.fail_next(1, WRAP, &Fault::error(403, "permission denied"));
    let missing = "encryption key not found";
    two.fail_next(1, WRAP, &Fault::error(400, missing));
    assert_eq!(wraps(&subject, SOON).await, Err(Code::KeyMissing));
    wraps(&subject, SOON).await.expect("the token is still good");
    let logins = |node: &StandIn| node.requests_for("auth/approle/login");
    assert_eq!(logins(&one) + logins(&two), 1);
}

/// A standby that redirects to the leader does not overrule the leader's answer.
#[tokio::test]
async fn replaces_a_token_that_the_leader_refuses_although_standbys_redirect() {
    let leader = StandIn::start().await;
    let (one, two) = (leader.node().await, leader.node().await);
    let subject = subject_of(&[&leader, &one, &two]);
    for standby in [&one, &two] {
        standby.fail_next(1_000, "transit", &Fault::Redirect(leader.address.clone()));
    }
    wraps(&subject, SOON).await.unwrap();
    // After an outage of the leader, a standby is the preferred endpoint.
    leader.set_fault(Some(Fault::sealed()));
    wraps(&subject, SOON).await.unwrap_err();
    leader.set_fault(None);
    leader.expire_tokens();
    works_again(&subject).await;
    assert_eq!(leader.requests_for("auth/approle/login"), 2);
}

/// A standby may not know a new secret ID yet. Its refusal would stop logins for an hour.
#[tokio::test]
async fn logins_go_to_the_active_node() {
    let one = StandIn::start().await;
    let (two, three) = (one.node().await, one.node().await);
    let unknown = Fault::error(400, "invalid role or secret ID");
    one.fail_next(9, "auth/approle/login", &unknown);
    two.fail_next(9, "auth/approle/login", &unknown);
    one.lead(false);
    three.lead(true);
    let subject = subject_of(&[&one, &two, &three]);
    wraps(&subject, SOON).await.unwrap();
    assert_eq!(three.requests_for("auth/approle/login"), 1);
}

/// An endpoint of another cluster is reported at the start, before an outage needs it.
#[tokio::test]
async fn endpoints_are_checked_before_they_are_needed() {
    let one = StandIn::start().await;
    let (two, foreign) = (one.node().await, one.foreign_node().await);
    let subject = subject_of(&[&one, &two, &foreign]);
    wraps(&subject, SOON).await.unwrap();
    let client = subject.client.clone();
    let checking = tokio::spawn(async move { client.run_health_checks().await });
    let told = || {
        let view = subject.client.endpoints();
        view[2].last_error.as_ref().map(|error| error.code()) == Some(CLUSTER_FOREIGN)
    };
    tokio::time::timeout(SOON, async {
        while !told() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the foreign endpoint is reported");
    checking.abort();
    let view = subject.client.endpoints();
    assert!(view[0].preferred && view[1].last_error.is_none(), "{view:?}");
    assert!(two.requests_for("sys/health") > 0);
    assert_eq!(two.requests_for(WRAP) + foreign.requests_for(WRAP), 0);
}
