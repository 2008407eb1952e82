//! Checks the files that the settings of Vault name.

use tokio::time::timeout;

use crate::{
    adapters::{
        spiffe::workload_api::WorkloadApi,
        system::{place::mode_of, watched_file::WatchedFile},
        vault::{
            login::{
                credential_file::CredentialPath,
                credential_text::{self, CREDENTIAL_MAX},
                method::MethodSettings,
                spiffe::{SpiffeLoginSettings, Svid},
            },
            settings::VaultSettings,
            tls::{Identity, Trust},
        },
    },
    domain::time::CALL_BUDGET,
    ports::{
        file::TextFile,
        finding::{Area, Finding, Report},
        workload_identity::WorkloadIdentity as _,
    },
};

/// Adds a finding for each file to `report`.
pub(super) async fn check(vault: &VaultSettings, report: &mut Report) {
    match (&vault.servers.tls.trust, &vault.ca_file) {
        (Trust::BundleUnavailable(why), _) => {
            report.add(Finding::fail(Area::Files, why, "write the PEM bundle into a plain file"));
        }
        (_, Some(path)) => {
            report.add(Finding::writable_by_owner_only("tls-ca-file", path, mode_of(path)));
        }
        (_, None) => (),
    }
    if let (false, Identity::Unavailable { why, remedy }) =
        (vault.login.method.presents_a_certificate(), &vault.servers.tls.identity)
    {
        report.add(Finding::fail(Area::Files, why, *remedy));
    }
    if let MethodSettings::Spiffe(settings) = &vault.login.method {
        report.add(gives_identity(settings).await);
    }
    for of in vault.login.method.files() {
        let file = WatchedFile::new(of.path.clone(), CREDENTIAL_MAX);
        report.add(holds(&file, &of).await);
    }
}

/// Asks the agent for a credential.
async fn gives_identity(settings: &SpiffeLoginSettings) -> Finding {
    let agent = WorkloadApi::new(settings.agent.clone());
    let given = match &settings.svid {
        Svid::Jwt(audience) => agent.jwt(audience).await.map(|_jwt| "a JWT-SVID"),
        Svid::X509 => {
            let arrives = async {
                tokio::select! {
                    () = agent.follow() => (),
                    _certificate = agent.next_certificate(None) => (),
                }
            };
            // `certificate` then tells what is missing.
            let _elapsed = timeout(CALL_BUDGET, arrives).await.is_err();
            agent.certificate().await.map(|_certificate| "an X.509-SVID")
        }
    };
    match given {
        Ok(svid) => {
            let text = format!("the SPIFFE agent at {} gives {svid}", agent.place());
            Finding::pass(Area::Files, text)
        }
        Err(error) => Finding::from_error(Area::Files, &error),
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
