//! The part of `check` that tests the connection to the keeper, the login and the policy.

use std::time::Duration;

use super::{
    address::VaultAddress,
    capabilities::{Capabilities, PolicyReview},
    client::VaultClient,
    handshake::{self, Handshake},
    login::LoginSettings,
    servers::ServerSettings,
    session::VaultSession,
    settings::VaultSettings,
    tls::Identity,
    transit::TransitSettings,
    vocabulary,
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
            Finding, Report, Verdict,
        },
        keeper::SessionView,
    },
};

/// The longest time for one step. A login may take `--login-timeout` in addition.
const STEP_MAX: Duration = Duration::from_secs(8);

/// A certificate that expires in fewer days than this leads to a warning.
const DAYS_LEFT_MIN: u64 = 14;

/// Adds the findings to `report`. Returns whether the connection and the login work, so that the
/// key can be checked.
pub(super) async fn check(
    settings: &VaultSettings,
    client: &VaultClient,
    session: &VaultSession,
    capabilities: &Capabilities,
    clock: &dyn Clock,
    report: &mut Report,
) -> bool {
    if !connection(&settings.servers, clock.wall(), report).await {
        report.add_unchecked(&[Login, Policy, Key, Binding, Clocks]);
        return false;
    }
    if let Some(ignored) = ignored_namespace(&settings.transit)
        && client.is_without_namespaces().await == Some(true)
    {
        report.add(ignored);
    }
    let most = settings.login.timeout.saturating_add(STEP_MAX);
    session.settled(clock.now().after(most)).await;
    if !login(&settings.login, &session.view(), report) {
        report.add_unchecked(&[Policy, Key, Binding, Clocks]);
        return false;
    }
    policy(capabilities.review(clock.now().after(STEP_MAX)).await, report);
    true
}

/// Returns the warning for a server that ignores the namespaces of `settings`. `None` if no
/// namespace is set.
pub(super) fn ignored_namespace(settings: &TransitSettings) -> Option<Finding> {
    let flag = [
        ("--vault-namespace", &settings.namespace),
        ("--vault-auth-namespace", &settings.auth_namespace),
    ]
    .into_iter()
    .find_map(|(flag, namespace)| (!namespace.as_str().is_empty()).then_some(flag))?;
    Some(Finding::warn(
        Connection,
        format!(
            "the server is a community edition of Vault, which ignores {flag}: the mounts and the key of the root namespace are used"
        ),
        "use OpenBao or Vault Enterprise for namespaces, or remove the flag",
    ))
}

/// Returns whether a connection to at least one endpoint works.
async fn connection(servers: &ServerSettings, now: UnixTime, report: &mut Report) -> bool {
    if !servers.is_tls() {
        return true;
    }
    if let Identity::Pair(pair) = &servers.tls.identity {
        report.add(pair.finding(now, DAYS_LEFT_MIN));
    }
    let mut any = false;
    for address in &servers.addresses {
        let found = handshake::inspect(servers, address, now).await;
        any = any || found.is_ok();
        report.add(handshake_finding(address, found));
    }
    any
}

fn handshake_finding(address: &VaultAddress, found: Result<Handshake, KmsError>) -> Finding {
    match found {
        Ok(Handshake { protocol, group, days_left: None, .. }) => {
            Finding::pass(Connection, format!("{protocol}{} with {address}", by(group)))
        }
        Ok(Handshake { protocol, group, days_left: Some(days), .. }) if days >= DAYS_LEFT_MIN => {
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
                "the certificate of {address} expires in {} days",
                days_left.unwrap_or_default()
            ),
            "renew the server's certificate, or the authority in --tls-ca-file if that expires first",
        ),
        Err(error) => Finding::from_error(Connection, &error),
    }
}

/// Returns the key exchange in brackets, or an empty text if it is not known.
fn by(group: Option<&str>) -> String {
    group.map(|group| format!(" ({group})")).unwrap_or_default()
}

/// Returns how bad it is that a login failed with `code`. A valid wrapping token is as it should be.
fn verdict_of(code: Code) -> Verdict {
    if code == vocabulary::WRAPPING_TOKEN_LEFT { Verdict::Warn } else { Verdict::Fail }
}

/// Returns whether the login gave a token.
fn login(login: &LoginSettings, session: &SessionView, report: &mut Report) -> bool {
    if session.logins.is_none() {
        report.add(match &session.closed {
            Some(error) => {
                Finding { verdict: verdict_of(error.code()), ..Finding::from_error(Login, error) }
            }
            None => Finding::fail(
                Login,
                format!("the login at {login} did not finish in time"),
                "see the findings about the connection above, or raise --login-timeout",
            ),
        });
        return false;
    }
    report.add(match session.token_left {
        // The login ended a moment ago, so rounding up gives the whole lifetime in seconds.
        Some(left) => Finding::pass(
            Login,
            format!("{login} gives a token for {} s", left.as_millis().div_ceil(1_000)),
        ),
        None => Finding::warn(
            Login,
            format!("{login} gives a token that never expires"),
            "set token_ttl on the role, so that a stolen token expires",
        ),
    });
    true
}

fn policy(review: Result<PolicyReview, KmsError>, report: &mut Report) {
    match review {
        Ok(review) => {
            for missing in &review.missing {
                let remedy = format!("grant {missing}");
                report.add(Finding::fail(Policy, format!("{missing} is not granted"), remedy));
            }
            for (surplus, danger) in &review.surplus {
                let text = format!("{surplus} is granted and not needed: {danger}");
                report.add(Finding::warn(Policy, text, "remove it from the policy"));
            }
            if review.is_root {
                let remedy = "give the role a policy of its own instead of root";
                report.add(Finding::warn(
                    Policy,
                    "the token has the policy root and may do everything",
                    remedy,
                ));
            }
            if review == PolicyReview::default() {
                report.add(Finding::pass(
                    Policy,
                    "the token may do all that is needed on this key, and nothing dangerous",
                ));
            }
        }
        Err(error) if error.code() == Code::PermissionDenied => report.add(Finding::warn(
            Policy,
            "the policy cannot be checked: the token may not read its own capabilities",
            "grant update on sys/capabilities-self, or the policy default",
        )),
        Err(error) => report.add(Finding::from_error(Policy, &error)),
    }
}
