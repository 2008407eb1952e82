//! Checks the key: its settings, its proofs, and the clock that dates its versions.

use std::time::Duration;

use crate::{
    domain::{
        error::KmsError,
        health::Standing,
        key::{KekSnapshot, KekVersion},
        rotation::Writer,
        time::UnixTime,
    },
    ports::finding::{
        Area::{Binding, Clock, Key},
        Finding, Report,
    },
};

/// A larger difference of the clocks is a warning. Rotations then use the keeper's clock.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(2);

pub(super) fn settings(
    snapshot: &KekSnapshot,
    (standing, writer): (Standing, Option<Writer>),
    report: &mut Report,
) {
    let floor = snapshot.min_decryption;
    let read = match (floor, snapshot.latest) {
        (floor, latest) if floor == latest => {
            format!("version {latest} is the only version that reads")
        }
        (floor, latest) => format!("versions {floor} to {latest} read"),
    };
    match (writer, standing) {
        (Some(Writer { version, key_id }), _) => {
            let least =
                snapshot.min_encryption.map(|least| format!("; {least} is the lowest to write"));
            let least = least.unwrap_or_default();
            let text = format!("version {version} writes, as {key_id}; {read}{least}");
            report.add(Finding::pass(Key, text));
        }
        (None, Standing::Failing(error) | Standing::Ailing(error)) => {
            report.add(Finding::from_error(Key, &error));
        }
        (None, Standing::Healthy) => (),
    }
    for setting in &snapshot.warnings {
        let text = format!("{} is set: {}", setting.setting, setting.danger);
        report.add(Finding::warn(Key, text, setting.remedy));
    }
}

pub(super) fn binding(proofs: &[(KekVersion, Option<KmsError>)], report: &mut Report) {
    for (version, error) in proofs {
        report.add(match error {
            None => Finding::pass(
                Binding,
                format!("version {version} wraps, unwraps, and rejects other associated data"),
            ),
            Some(error) => Finding::from_error(Binding, error),
        });
    }
    if proofs.is_empty() {
        report.add_unchecked(&[Binding]);
    }
}

pub(super) fn clock(snapshot: &KekSnapshot, wall: UnixTime, report: &mut Report) {
    let Some(keeper) = snapshot.keeper_time else { return };
    let apart = keeper.apart(wall);
    report.add(if apart > CLOCK_DIFFERENCE_MAX {
        Finding::warn(
            Clock,
            format!("this node's clock and the keeper's are {} s apart", apart.as_secs()),
            "synchronise both clocks; until then rotations use the keeper's clock",
        )
    } else {
        Finding::pass(Clock, format!("{:.1} s apart from the keeper's", apart.as_secs_f64()))
    });
}
