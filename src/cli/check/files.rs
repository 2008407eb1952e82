//! Files that are read, and who else can read or write them.

use std::path::Path;

use tokio::{sync::watch, time::timeout};

use crate::{
    adapters::vault::{approle::credential_text, tls::Trust},
    cli::{
        finding::{Area, Finding, Report},
        keeper,
        warnings::mode_of,
    },
    config::{
        settings::{KeeperSettings, Settings},
        sources::Sources,
    },
    domain::time::CALL_BUDGET,
    ports::file::TextFile,
};

pub(super) async fn check(sources: &Sources, settings: &Settings, report: &mut Report) {
    if let Some(path) = given(sources, "config") {
        report.add(written_by_us_alone("config", path));
    }
    let KeeperSettings::Vault(vault) = &settings.keeper else { return };
    match (&vault.client.tls.trust, &vault.ca_file) {
        (Trust::Awaited(why), _) => {
            report.add(Finding::fail(Area::Files, why, "write the PEM bundle into a plain file"));
        }
        (_, Some(path)) => report.add(written_by_us_alone("tls-ca-file", path)),
        (_, None) => (),
    }
    let opened = keeper::files(&vault.approle, &watch::channel(()).1);
    let what = if vault.approle.secret_id_wrapped { "wrapping token" } else { "secret ID" };
    if let Some(file) = &opened.secret_id {
        report.add(holds(&**file, "approle-secret-id-path", what).await);
    }
    if let Some(file) = &opened.role_id {
        report.add(holds(&**file, "approle-role-id-path", "role ID").await);
    }
}

async fn holds(file: &dyn TextFile, flag: &str, what: &str) -> Finding {
    match timeout(CALL_BUDGET, credential_text::read(file, flag, what)).await {
        Ok(Ok(_)) => Finding::pass(Area::Files, format!("{} holds a {what}", file.place())),
        Ok(Err(error)) => Finding::failed(Area::Files, &error),
        Err(_elapsed) => Finding::fail(
            Area::Files,
            format!("--{flag}: reading {} does not end", file.place()),
            format!("write the {what} into a plain file"),
        ),
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
