//! Several endpoints of one cluster: failover, membership, redirections.

use std::time::Duration;

use vault_kube_kms::{adapters::vault::address::VaultAddress, domain::error::Code};

use crate::{
    stand_in::{SOON, within},
    support::{
        admin::Admin,
        stand_in::{Fault, StandIn},
        transit::TransitSubject,
    },
};

const READ: &str = "transit/keys/k1";

/// A keeper that knows all of these endpoints, in this order.
fn subject_of(nodes: &[&StandIn]) -> TransitSubject {
    let first = nodes[0];
    let admin = Admin::new(&first.address, "unused", Some(first.ca.clone()));
    let addresses = nodes.iter().map(|node| VaultAddress::parse(&node.address).unwrap()).collect();
    TransitSubject::with(admin, first.provisioned.clone(), |wiring| {
        wiring.client.addresses = addresses;
    })
}

async fn describes(subject: &TransitSubject, wait: Duration) -> Result<(), Code> {
    let described = subject.kek.describe(within(subject, wait)).await;
    described.map(drop).map_err(|error| error.code())
}

#[tokio::test]
async fn another_endpoint_answers_when_one_fails_and_stays_the_first() {
    for fault in [Fault::Reset, Fault::html_502(), Fault::sealed(), Fault::Hang] {
        let one = StandIn::start().await;
        let two = one.node().await;
        let subject = subject_of(&[&one, &two]);
        describes(&subject, SOON).await.unwrap();
        assert_eq!(two.requests_for(READ), 0, "the first one is asked first");
        one.set_fault(Some(fault.clone()));
        for _ in 0..5 {
            describes(&subject, SOON).await.unwrap_or_else(|code| panic!("{fault:?}: {code}"));
        }
        assert_eq!(two.requests_for(READ), 5, "{fault:?}");
        let asked = one.requests_for(READ);
        assert_eq!(asked, 2, "{fault:?}: the one that answered is asked first from then on");
    }
}

#[tokio::test]
async fn a_hung_endpoint_leaves_time_for_another_within_one_call() {
    let one = StandIn::start().await;
    let two = one.node().await;
    let subject = subject_of(&[&one, &two]);
    describes(&subject, SOON).await.unwrap();
    one.set_fault(Some(Fault::Hang));
    describes(&subject, Duration::from_millis(2_800)).await.expect("by the other one");
}

#[tokio::test]
async fn an_endpoint_of_another_cluster_is_refused() {
    let one = StandIn::start().await;
    let stranger = one.stranger().await;
    let subject = subject_of(&[&one, &stranger]);
    describes(&subject, SOON).await.unwrap();
    one.set_fault(Some(Fault::sealed()));
    // Its key of the same name would be another one.
    for _ in 0..5 {
        let code = describes(&subject, SOON).await.unwrap_err();
        assert!(matches!(code, Code::ClusterForeign | Code::KeeperSealed), "{code}");
    }
    assert_eq!(stranger.requests_for(READ), 0);
    assert!(stranger.requests_for("sys/health") > 0);
    one.set_fault(None);
    crate::stand_in::heals(&subject).await;
}

#[tokio::test]
async fn a_redirection_is_followed_once_and_only_to_a_configured_endpoint() {
    let one = StandIn::start().await;
    let (two, other) = (one.node().await, one.node().await);
    let subject = subject_of(&[&one, &two]);
    describes(&subject, SOON).await.unwrap();
    one.fail_next(1, READ, &Fault::Redirect(two.address.clone()));
    describes(&subject, SOON).await.unwrap();
    assert_eq!(two.requests_for(READ), 1);

    // Not to a third one, though it is of the same cluster: the token would go with it.
    one.set_fault(Some(Fault::Redirect(other.address.clone())));
    two.set_fault(Some(Fault::Redirect(other.address.clone())));
    assert_eq!(describes(&subject, SOON).await, Err(Code::KeeperFailed));
    assert_eq!(other.requests_for(READ), 0);

    // And not in circles: a few tries, as in an election, and no more.
    one.set_fault(Some(Fault::Redirect(two.address.clone())));
    two.set_fault(Some(Fault::Redirect(one.address.clone())));
    let before = one.requests_for(READ) + two.requests_for(READ);
    assert_eq!(describes(&subject, SOON).await, Err(Code::KeeperFailed));
    assert!((3..=6).contains(&(one.requests_for(READ) + two.requests_for(READ) - before)));
}

/// A proxy before one address, say, that serves no `sys/health`: it is never taken for the cluster.
#[tokio::test]
async fn an_endpoint_that_does_not_say_who_it_is_is_asked_for_nothing() {
    for status in [400, 403, 404, 429] {
        let one = StandIn::start().await;
        let two = one.node().await;
        two.fail_next(1_000, "", &Fault::Says(status, "<html></html>".to_owned()));
        let subject = subject_of(&[&one, &two]);
        describes(&subject, SOON).await.unwrap();
        one.fail_next(1, READ, &Fault::Reset);
        describes(&subject, SOON).await.unwrap_or_else(|code| panic!("{status}: {code}"));
        assert_eq!(two.requests_for(READ), 0, "{status}");
        let asked = one.requests_for(READ);
        describes(&subject, SOON).await.unwrap();
        assert_eq!(one.requests_for(READ), asked + 1, "{status}: it is still asked first");
    }
}

/// A node that never learns of a key version is no reason to fail while another one knows it.
#[tokio::test]
async fn a_version_that_one_node_lacks_is_asked_for_elsewhere() {
    let one = StandIn::start().await;
    let two = one.node().await;
    let subject = subject_of(&[&one, &two]);
    describes(&subject, SOON).await.unwrap();
    let behind = Fault::error(400, "version is too new");
    one.fail_next(1_000, READ, &behind);
    for _ in 0..3 {
        describes(&subject, SOON).await.unwrap();
    }
    assert_eq!((one.requests_for(READ), two.requests_for(READ)), (2, 3), "it is asked first");
}

/// A leader that was deposed answers so for a moment, while others serve already.
#[tokio::test]
async fn a_node_without_a_leader_sends_nobody_away() {
    for fault in [
        Fault::error(500, "local node not active but active cluster node not found"),
        Fault::error(500, "internal error"),
        Fault::redirect_elsewhere(),
    ] {
        let one = StandIn::start().await;
        let two = one.node().await;
        let subject = subject_of(&[&one, &two]);
        describes(&subject, SOON).await.unwrap();
        one.set_fault(Some(fault.clone()));
        describes(&subject, SOON).await.unwrap_or_else(|code| panic!("{fault:?}: {code}"));
    }
}

/// A standby may not know a new token yet either; what all refuse is believed.
#[tokio::test]
async fn a_token_that_one_node_does_not_know_is_shown_to_another() {
    let one = StandIn::start().await;
    let two = one.node().await;
    let subject = subject_of(&[&one, &two]);
    one.fail_next(1, READ, &Fault::error(403, "permission denied"));
    describes(&subject, SOON).await.unwrap();
    let logins = || one.requests_for("auth/approle/login") + two.requests_for("auth/approle/login");
    assert_eq!((logins(), two.requests_for(READ)), (1, 1));
    one.expire_tokens();
    // The next token follows at once, or a second later where this one was new.
    tokio::time::timeout(SOON, async { while describes(&subject, SOON).await.is_err() {} })
        .await
        .expect("with a new token");
    assert_eq!(logins(), 2);
}

/// A standby may not know a new secret ID yet: its refusal would be believed for an hour.
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
    describes(&subject, SOON).await.unwrap();
    assert_eq!(three.requests_for("auth/approle/login"), 1);
}

/// A mistake in the list is to be told of at the start, and not when the endpoint is needed.
#[tokio::test]
async fn endpoints_are_greeted_before_they_are_needed() {
    let one = StandIn::start().await;
    let (two, stranger) = (one.node().await, one.stranger().await);
    let subject = subject_of(&[&one, &two, &stranger]);
    let client = subject.client.clone();
    let warming = tokio::spawn(async move { client.keep_warm().await });
    let told = || {
        let view = subject.client.endpoints();
        view[2].last_error.as_ref().map(|error| error.code()) == Some(Code::ClusterForeign)
    };
    tokio::time::timeout(SOON, async {
        while !told() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the stranger is found out");
    warming.abort();
    let view = subject.client.endpoints();
    assert!(view[0].preferred && view[1].last_error.is_none(), "{view:?}");
    assert!(two.requests_for("sys/health") > 0);
    assert_eq!(two.requests_for(READ) + stranger.requests_for(READ), 0);
}
