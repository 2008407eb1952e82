//! The step that makes the key and the role at the keeper.

use std::fmt::Write as _;

use super::{
    Answers,
    steps::{INSTALL_PROGRAM, INSTALL_USER, MAKE_USER, ONCE, Step, StepId},
};

/// Returns the step for the keeper of `answers`.
pub(super) fn keeper(answers: &Answers) -> Step {
    let (why, commands) = if answers.value("keeper") == "local" {
        (
            "The embedded keeper has its key in a file of the node. It serves one node only. Back up \
             the file: without it the data is lost."
                .to_owned(),
            local_key(&answers.value("local-key-file")),
        )
    } else {
        at_vault(answers)
    };
    Step {
        id: StepId::Keeper,
        title: "The keeper has the key and the role",
        at: ONCE,
        why,
        commands,
    }
}

/// Returns why, and the commands for Vault or `OpenBao`. They name each place where the provider looks.
fn at_vault(answers: &Answers) -> (String, Vec<String>) {
    let (mount, key) = key_path(answers);
    let is_given = |flag: &str| answers.flags.contains_key(flag);
    let in_namespaces = is_given("vault-namespace") || is_given("vault-auth-namespace");
    let within = |namespace: &str| {
        if in_namespaces { format!("VAULT_NAMESPACE={namespace} ") } else { String::new() }
    };
    let (there, at_login) = (within(&answers.namespace()), within(&answers.auth_namespace()));
    let auth_mount = answers.value("auth-mount");
    let auth_mount = auth_mount.trim_matches('/');
    let mut why = connection(answers);
    if answers.has_script() {
        why.push_str(
            "The script makes the Transit engine, the key, the policy and the AppRole, and keeps what \
             exists. Each further node gets a secret ID of its own: run it again with another \
             directory.",
        );
        let mut command = format!("{there}MOUNT={mount} KEY={key} ");
        if !auth_mount.is_empty() {
            let _infallible = write!(command, "AUTH_MOUNT={auth_mount} ");
        }
        if answers.value("approle-secret-id-wrapped") == "true" {
            command.push_str("WRAP_TTL=10m ");
            why.push_str(
                " The file secret-id holds a wrapping token: start the provider with it within ten \
                 minutes.",
            );
        }
        if is_given("approle-role-id") {
            why.push_str(
                " Set --approle-role-id in 2-provider to the role ID that the script writes, if they \
                 differ.",
            );
        }
        return (why, vec![format!("{command}1-keeper/setup.sh credentials")]);
    }
    let _infallible = write!(
        why,
        "Leave out what exists. Then give the policy to the role of the login {}",
        answers.value("auth-method")
    );
    if !auth_mount.is_empty() {
        let _infallible = write!(why, " at auth/{auth_mount}");
    }
    if in_namespaces {
        let namespace = answers.auth_namespace();
        let shown = if namespace.is_empty() { "root" } else { &namespace };
        let _infallible = write!(why, " in the namespace {shown}");
    }
    why.push_str(", as docs/authentication.md shows.");
    let commands = vec![
        format!("{there}vault secrets enable -path={mount} transit"),
        format!("{there}vault write -f {mount}/keys/{key} type=aes256-gcm96"),
        format!("{at_login}vault policy write vault-kube-kms 1-keeper/policy.hcl"),
    ];
    (why, commands)
}

/// Returns the sentence that names the variables of the CLI.
fn connection(answers: &Answers) -> String {
    let mut variables = vec!["VAULT_ADDR"];
    for (flag, variable) in [
        ("tls-ca-file", "VAULT_CACERT (the keeper's certificate authority)"),
        ("tls-sni", "VAULT_TLS_SERVER_NAME (the value of --tls-sni)"),
        ("tls-client-cert-file", "VAULT_CLIENT_CERT and VAULT_CLIENT_KEY (a client certificate)"),
    ] {
        if answers.flags.contains_key(flag) {
            variables.push(variable);
        }
    }
    format!("Set {} and VAULT_TOKEN (an administrator's token) before. ", variables.join(", "))
}

/// Returns the commands that make the embedded keeper's key, as the user of the service.
fn local_key(path: &str) -> Vec<String> {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    vec![
        INSTALL_PROGRAM.to_owned(),
        INSTALL_USER.to_owned(),
        MAKE_USER.to_owned(),
        format!("install -d -o vault-kube-kms -g vault-kube-kms -m 0700 {directory}"),
        format!(
            "runuser -u vault-kube-kms -- /usr/local/bin/vault-kube-kms local init \
             --local-key-file={path}"
        ),
    ]
}

/// Returns the mount and the name of the key.
fn key_path(answers: &Answers) -> (String, String) {
    let path = answers.value("vault-key-path");
    let (mount, key) = path.rsplit_once("/keys/").map_or_else(
        || (answers.value("transit-mount"), answers.value("transit-key")),
        |(mount, key)| (mount.to_owned(), key.to_owned()),
    );
    (mount.trim_matches('/').to_owned(), key)
}
