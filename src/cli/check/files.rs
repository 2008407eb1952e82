//! Files that are read, and who else can read or write them.

use std::path::Path;

use crate::{
    adapters::vault::approle::AppRole,
    cli::{
        finding::{Area, Finding, Report},
        warnings::mode_of,
    },
    config::{
        settings::{KeeperSettings, Settings},
        sources::Sources,
    },
};

pub(super) async fn check(sources: &Sources, settings: &Settings, report: &mut Report) {
    for flag in ["config", "tls-ca-file"] {
        if let Some(path) = sources.get(flag).and_then(|given| given.values.last()) {
            report.add(written_by_us_alone(flag, Path::new(path)));
        }
    }
    if let KeeperSettings::Vault(vault) = &settings.keeper {
        match AppRole::secret_id(&vault.approle).await {
            Ok(_) if report.passes(Area::Files) => report.add(Finding::pass(
                Area::Files,
                format!("{} holds a secret ID", vault.approle.secret_id_path.display()),
            )),
            Ok(_) => (),
            Err(error) => report.add(Finding::failed(Area::Files, &error)),
        }
    }
}

/// Whoever can write such a file decides which server is believed.
fn written_by_us_alone(flag: &str, path: &Path) -> Finding {
    let shown = path.display();
    match mode_of(path) {
        Some(mode) if mode & 0o022 != 0 => Finding::warn(
            Area::Files,
            format!("--{flag}: group or others can write {shown} ({mode:04o})"),
            "chmod it to 0644",
        ),
        _ => Finding::pass(Area::Files, format!("--{flag}: {shown} is read")),
    }
}
