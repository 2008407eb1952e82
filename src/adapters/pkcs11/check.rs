//! Checks module, token, mechanism and login for the command `check`.

use std::{sync::Arc, time::Duration};

use cryptoki::{
    mechanism::MechanismType,
    slot::{Limit, Slot, TokenInfo},
};

use super::{login::Tries, meaning::Fault, pool::Pool};
use crate::{
    domain::error::{Code, KmsError},
    ports::{
        clock::Clock,
        finding::{Area, Finding, Report},
    },
};

/// Limits the time of one step.
const STEP: Duration = Duration::from_secs(8);

/// Adds a finding for each step, and stops at the first failure. Returns whether all steps passed.
pub(super) async fn check(pool: &Arc<Pool>, clock: &dyn Clock, report: &mut Report) -> bool {
    let until = || clock.now().after(STEP);
    match pool.ask(until(), |pool| pool.library.description()).await {
        Ok(module) => {
            report.add(Finding::pass(Area::Connection, format!("the module is {module}")));
        }
        Err(error) => return fail(Area::Connection, &error, report),
    }
    let sessions = pool.size();
    match pool.ask(until(), |pool| pool.library.find(&pool.token)).await {
        Ok((_, token)) => describe(&token, sessions, report),
        Err(error) => return fail(Area::Connection, &error, report),
    }
    match pool.ask(until(), mechanism).await {
        Ok(()) => report.add(Finding::pass(Area::Policy, "the token encrypts with AES-GCM")),
        Err(error) => return fail(Area::Policy, &error, report),
    }
    match pool.run_once(until(), |_live| Ok(())).await {
        Ok(()) => {
            report.add(Finding::pass(Area::Login, "the token takes the PIN"));
            true
        }
        Err(error) => fail(Area::Login, &error, report),
    }
}

fn fail(area: Area, error: &KmsError, report: &mut Report) -> bool {
    report.add(Finding::from_error(area, error));
    let after = [Area::Login, Area::Policy, Area::Key, Area::Binding];
    let unchecked: Vec<_> = after.into_iter().filter(|later| *later != area).collect();
    report.add_unchecked(&unchecked);
    false
}

fn describe(token: &TokenInfo, sessions: u32, report: &mut Report) {
    let flags = [
        (token.login_required(), "login required"),
        (token.user_pin_initialized(), "PIN set"),
        (token.write_protected(), "write-protected"),
        (token.error_state(), "ERROR STATE"),
    ];
    let flags: Vec<_> = flags.into_iter().filter_map(|(set, name)| set.then_some(name)).collect();
    let text = format!(
        "the token is {:?}, serial number {:?}, model {:?} ({})",
        token.label(),
        token.serial_number(),
        token.model(),
        flags.join(", ")
    );
    report.add(Finding::pass(Area::Connection, text));
    if Tries::of(token) > Tries::All {
        report.add(Finding::warn(
            Area::Login,
            "the token was given a wrong PIN since its last login",
            "find out which node or person has the wrong PIN: a few more lock the token",
        ));
    }
    if let Limit::Max(most) = token.max_session_count()
        && (1..u64::from(sessions)).contains(&most)
    {
        report.add(Finding::warn(
            Area::Connection,
            format!("the token has {most} sessions, and --pkcs11-sessions is {sessions}"),
            format!("set --pkcs11-sessions={most} or less"),
        ));
    }
}

/// Checks that the token encrypts and decrypts with AES-GCM. Blocks.
fn mechanism(pool: &Pool) -> Result<(), Fault> {
    let (slot, _): (Slot, _) = pool.library.find(&pool.token)?;
    let client = pool.library.client();
    let there = client.get_mechanism_list(slot)?.contains(&MechanismType::AES_GCM);
    let info =
        there.then(|| client.get_mechanism_info(slot, MechanismType::AES_GCM)).transpose()?;
    if info.is_some_and(|info| info.encrypt() && info.decrypt()) {
        return Ok(());
    }
    Err(KmsError::new(
        Code::KeyUnusable,
        "the token does not encrypt and decrypt with CKM_AES_GCM",
        "use a token, or a firmware of it, that has AES-GCM",
    )
    .into())
}
