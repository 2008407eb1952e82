//! Checks the files that the settings of Vault name.

use tokio::{sync::watch, time::timeout};

use super::approle_files;
use crate::{
    adapters::{
        system::place::mode_of,
        vault::{approle::credential_text, settings::VaultSettings, tls::Trust},
    },
    domain::time::CALL_BUDGET,
    ports::{
        file::TextFile,
        finding::{Area, Finding, Report},
    },
};

/// Adds a finding for each file to `report`.
pub(super) async fn check(vault: &VaultSettings, report: &mut Report) {
    match (&vault.client.tls.trust, &vault.ca_file) {
        (Trust::BundleUnavailable(why), _) => {
            report.add(Finding::fail(Area::Files, why, "write the PEM bundle into a plain file"));
        }
        (_, Some(path)) => {
            report.add(Finding::writable_by_owner_only("tls-ca-file", path, mode_of(path)));
        }
        (_, None) => (),
    }
    let opened = approle_files(vault, &watch::channel(()).1);
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
        Ok(Err(error)) => Finding::from_error(Area::Files, &error),
        Err(_elapsed) => Finding::fail(
            Area::Files,
            format!("--{flag}: reading {} does not end", file.place()),
            format!("write the {what} into a plain file"),
        ),
    }
}
