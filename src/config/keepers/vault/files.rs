//! Checks the files that the settings of Vault name.

use tokio::{sync::watch, time::timeout};

use super::watched;
use crate::{
    adapters::{
        system::place::mode_of,
        vault::{
            login::{
                credential_file::CredentialPath,
                credential_text::{self, CREDENTIAL_MAX},
            },
            settings::VaultSettings,
            tls::{Identity, Trust},
        },
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
    if let Identity::Unavailable { why, remedy } = &vault.client.tls.identity {
        report.add(Finding::fail(Area::Files, why, *remedy));
    }
    for of in vault.login.method.files() {
        let file = watched(&of.path, CREDENTIAL_MAX, &watch::channel(()).1);
        report.add(holds(&*file, &of).await);
    }
}

async fn holds(file: &dyn TextFile, of: &CredentialPath) -> Finding {
    let CredentialPath { flag, what, .. } = of;
    match timeout(CALL_BUDGET, credential_text::read(file, of)).await {
        Ok(Ok(_)) => Finding::pass(Area::Files, format!("{} holds a {what}", file.place())),
        Ok(Err(error)) => Finding::from_error(Area::Files, &error),
        Err(_elapsed) => Finding::fail(
            Area::Files,
            format!("--{flag}: reading {} does not end", file.place()),
            format!("write the {what} into a plain file"),
        ),
    }
}
