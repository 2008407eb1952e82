//! The keeper: the way to it, the login and the policy; then its key.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};

use super::{key, notes::Notes};
use crate::{
    adapters::{
        system::clock::SystemClock,
        vault::{
            address::VaultAddress,
            capabilities::Verdict,
            handshake::{self, Handshake},
            key_path::MountPath,
        },
    },
    cli::{
        finding::{
            Area::{Binding, Clock as Clocks, Connection, Files, Key, Login, Policy},
            Finding, Report,
        },
        keeper::Keeper,
    },
    config::settings::{KeeperSettings, Settings, VaultSettings},
    domain::{
        error::{Code, KmsError},
        time::UnixTime,
    },
    ports::{clock::Clock, telemetry::Telemetry},
};

/// The most time for one step. A login may take `--login-timeout` before it.
const STEP: Duration = Duration::from_secs(8);

/// A certificate that ends sooner than this is told of.
const DAYS_LEAST: u64 = 14;

pub(super) async fn check(settings: &Settings, report: &mut Report) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    if let KeeperSettings::Vault(vault) = &settings.keeper
        && !connection(vault, clock.wall(), report).await
    {
        report.leave_out(&[Login, Policy, Key, Binding, Clocks]);
        return;
    }
    let notes = Arc::new(Notes::default());
    let telemetry: Arc<dyn Telemetry> = Arc::<Notes>::clone(&notes);
    match Keeper::new(&settings.keeper, &watch::channel(()).1, &clock, &telemetry) {
        Ok((keeper, tasks)) => {
            let mut background = JoinSet::new();
            for (_, task) in tasks {
                background.spawn(task);
            }
            ask(&keeper, settings, &clock, &notes, report).await;
            background.shutdown().await;
            if let Some(session) = &keeper.session {
                session.revoke().await;
            }
        }
        Err(error) => {
            report.add(Finding::told(Files, &error.to_string()));
            report.leave_out(&[Key, Binding]);
        }
    }
}

/// Whether there is a way to the keeper, by any of its endpoints.
async fn connection(vault: &VaultSettings, now: UnixTime, report: &mut Report) -> bool {
    if !vault.client.is_tls() {
        return true;
    }
    let mut any = false;
    for address in &vault.client.addresses {
        let found = handshake::inspect(&vault.client, address, now).await;
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

async fn ask(
    keeper: &Keeper,
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    notes: &Arc<Notes>,
    report: &mut Report,
) {
    if let (Some(session), KeeperSettings::Vault(vault)) = (&keeper.session, &settings.keeper) {
        let most = vault.approle.login_timeout.saturating_add(STEP);
        session.settled(clock.now().after(most)).await;
    }
    let described = keeper.kek.describe(clock.now().after(STEP)).await;
    let wall = clock.wall();
    if let KeeperSettings::Vault(vault) = &settings.keeper
        && !login(&vault.approle.mount, notes, described.as_ref().err(), report)
    {
        report.leave_out(&[Policy, Key, Binding, Clocks]);
        return;
    }
    if let Some(capabilities) = &keeper.capabilities {
        policy(capabilities.judge(clock.now().after(STEP)).await, report);
    }
    match described {
        Ok(snapshot) => {
            let telemetry: Arc<dyn Telemetry> = Arc::<Notes>::clone(notes);
            let watch = keeper.watch(settings, clock, &telemetry);
            watch.read_metadata().await;
            watch.prove(Duration::MAX).await;
            key::settings(&snapshot, watch.standing(), report);
            key::binding(&notes.read().proofs, report);
            key::clock(&snapshot, wall, report);
        }
        Err(error) => {
            report.add(Finding::failed(Key, &error));
            report.leave_out(&[Binding, Clocks]);
        }
    }
}

/// Whether there is a token.
fn login(
    mount: &MountPath,
    notes: &Notes,
    otherwise: Option<&KmsError>,
    report: &mut Report,
) -> bool {
    let heard = notes.read();
    let Some(ttl) = heard.logged_in else {
        if let Some(error) = heard.no_session.as_ref().or(otherwise) {
            report.add(Finding::failed(Login, error));
        }
        return false;
    };
    report.add(match ttl {
        Some(ttl) => {
            Finding::pass(Login, format!("auth/{mount} gives a token for {} s", ttl.as_secs()))
        }
        None => Finding::warn(
            Login,
            format!("auth/{mount} gives a token that never expires"),
            "set token_ttl on the role: a token that is lost is then of no use for long",
        ),
    });
    true
}

fn policy(verdict: Result<Verdict, KmsError>, report: &mut Report) {
    match verdict {
        Ok(verdict) => {
            for missing in &verdict.missing {
                let remedy = format!("grant {missing}");
                report.add(Finding::fail(Policy, format!("no {missing}"), remedy));
            }
            for (surplus, danger) in &verdict.surplus {
                let text = format!("{surplus} is granted and not needed: {danger}");
                report.add(Finding::warn(Policy, text, "take it out of the policy"));
            }
            if verdict.is_root {
                let remedy = "give the role a policy of its own instead of root";
                report.add(Finding::warn(Policy, "the token may do everything", remedy));
            }
            if verdict == Verdict::default() {
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
