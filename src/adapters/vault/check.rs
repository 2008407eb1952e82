//! What `check` finds of the way to the keeper, of the login and of the policy.

use std::time::Duration;

use super::{
    address::VaultAddress,
    capabilities::{Capabilities, PolicyReview},
    client::ClientSettings,
    handshake::{self, Handshake},
    key_path::MountPath,
    session::VaultSession,
    settings::VaultSettings,
};
use crate::{
    domain::{
        error::{Code, KmsError},
        time::UnixTime,
    },
    ports::{
        clock::Clock,
        finding::{
            Area::{Binding, Clock as Clocks, Connection, Key, Login, Policy},
            Finding, Report,
        },
        keeper::SessionView,
    },
};

/// The most time for one step. A login may take `--login-timeout` before it.
const STEP: Duration = Duration::from_secs(8);

/// A certificate that ends sooner than this is told of.
const DAYS_LEAST: u64 = 14;

/// Adds what is found to `report`. Returns whether the key can be looked at.
pub(super) async fn check(
    settings: &VaultSettings,
    session: &VaultSession,
    capabilities: &Capabilities,
    clock: &dyn Clock,
    report: &mut Report,
) -> bool {
    if !connection(&settings.client, clock.wall(), report).await {
        report.leave_out(&[Login, Policy, Key, Binding, Clocks]);
        return false;
    }
    let most = settings.approle.login_timeout.saturating_add(STEP);
    session.settled(clock.now().after(most)).await;
    if !login(&settings.approle.mount, &session.view(), report) {
        report.leave_out(&[Policy, Key, Binding, Clocks]);
        return false;
    }
    policy(capabilities.review(clock.now().after(STEP)).await, report);
    true
}

/// Returns whether there is a way to the keeper, by any of its endpoints.
async fn connection(client: &ClientSettings, now: UnixTime, report: &mut Report) -> bool {
    if !client.is_tls() {
        return true;
    }
    let mut any = false;
    for address in &client.addresses {
        let found = handshake::inspect(client, address, now).await;
        any = any || found.is_ok();
        report.add(shaken(address, found));
    }
    any
}

fn shaken(address: &VaultAddress, found: Result<Handshake, KmsError>) -> Finding {
    match found {
        Ok(Handshake { protocol, group, days_left: None, .. }) => {
            Finding::pass(Connection, format!("{protocol}{} with {address}", by(group)))
        }
        Ok(Handshake { protocol, group, days_left: Some(days), .. }) if days >= DAYS_LEAST => {
            Finding::pass(
                Connection,
                format!(
                    "{protocol}{} with {address}; its certificate is good for {days} days",
                    by(group)
                ),
            )
        }
        Ok(Handshake { days_left, .. }) => Finding::warn(
            Connection,
            format!(
                "the certificate of {address} is good for {} days only",
                days_left.unwrap_or_default()
            ),
            "renew it, or the authority in --tls-ca-file",
        ),
        Err(error) => Finding::failed(Connection, &error),
    }
}

/// The key exchange behind the protocol's name, where it is known.
fn by(group: Option<&str>) -> String {
    group.map(|group| format!(" ({group})")).unwrap_or_default()
}

/// Returns whether there is a token.
fn login(mount: &MountPath, session: &SessionView, report: &mut Report) -> bool {
    if session.logins.is_none() {
        report.add(match &session.closed {
            Some(error) => Finding::failed(Login, error),
            None => Finding::fail(
                Login,
                format!("the login at auth/{mount} does not end"),
                "see the connection above, or raise --login-timeout",
            ),
        });
        return false;
    }
    report.add(match session.token_left {
        // The login was a moment ago, so that this is the whole time in seconds.
        Some(left) => Finding::pass(
            Login,
            format!("auth/{mount} gives a token for {} s", left.as_millis().div_ceil(1_000)),
        ),
        None => Finding::warn(
            Login,
            format!("auth/{mount} gives a token that never expires"),
            "set token_ttl on the role: a token that is lost is then of no use for long",
        ),
    });
    true
}

fn policy(review: Result<PolicyReview, KmsError>, report: &mut Report) {
    match review {
        Ok(review) => {
            for missing in &review.missing {
                let remedy = format!("grant {missing}");
                report.add(Finding::fail(Policy, format!("no {missing}"), remedy));
            }
            for (surplus, danger) in &review.surplus {
                let text = format!("{surplus} is granted and not needed: {danger}");
                report.add(Finding::warn(Policy, text, "take it out of the policy"));
            }
            if review.is_root {
                let remedy = "give the role a policy of its own instead of root";
                report.add(Finding::warn(Policy, "the token may do everything", remedy));
            }
            if review == PolicyReview::default() {
                report.add(Finding::pass(
                    Policy,
                    "all that is needed on this key, and nothing dangerous",
                ));
            }
        }
        Err(error) if error.code() == Code::PermissionDenied => report.add(Finding::warn(
            Policy,
            "the token may not ask what it may do",
            "grant update on sys/capabilities-self, or the policy default, to have it checked",
        )),
        Err(error) => report.add(Finding::failed(Policy, &error)),
    }
}
