//! Files that are read, and who else can read or write them.

use std::path::Path;

use tokio::time::timeout;

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
    domain::time::CALL_BUDGET,
};

pub(super) async fn check(sources: &Sources, settings: &Settings, report: &mut Report) {
    if let Some(path) = given(sources, "config") {
        report.add(written_by_us_alone("config", path));
    }
    let KeeperSettings::Vault(vault) = &settings.keeper else { return };
    if let Some(path) =
        given(sources, "tls-ca-file").filter(|_| !vault.client.tls.believes_anybody())
    {
        report.add(written_by_us_alone("tls-ca-file", path));
    }
    let path = vault.approle.secret_id_path.display();
    match timeout(CALL_BUDGET, AppRole::secret_id(&vault.approle)).await {
        Ok(Ok(_)) => report.add(Finding::pass(Area::Files, format!("{path} holds a secret ID"))),
        Ok(Err(error)) => report.add(Finding::failed(Area::Files, &error)),
        Err(_elapsed) => report.add(Finding::fail(
            Area::Files,
            format!("--approle-secret-id-path: reading {path} does not end"),
            "write the secret ID into a plain file",
        )),
    }
}

fn given<'a>(sources: &'a Sources, flag: &str) -> Option<&'a Path> {
    let path = sources.get(flag)?.values.last()?;
    (!path.is_empty()).then_some(Path::new(path))
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
