//! The steps of an installation, in the order of `docs/install.md`.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Answers, Begin, ENCRYPTION_CONFIG, Form, SETTINGS_DIRECTORY};

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepId {
    /// Key, policy and role at the keeper.
    Keeper,
    /// The provider's files on the node.
    Provider,
    /// The provider answers.
    Serves,
    /// The API server reads with the provider.
    Read,
    /// The API server writes with the provider.
    Write,
    /// All objects are stored again.
    Rewrite,
    /// The API server refuses clear text.
    Only,
}

/// What to do, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which step it is.
    pub id: StepId,
    /// What is true after it.
    pub title: &'static str,
    /// Where to type the commands.
    pub at: &'static str,
    /// What the commands do, and what to watch for.
    pub why: String,
    /// The commands, in this order. They are typed in the directory of the installation.
    pub commands: Vec<String>,
}

const ONCE: &str = "once for the cluster";
const INSTALL_PROGRAM: &str = "install -m 0755 vault-kube-kms /usr/local/bin/vault-kube-kms";
const INSTALL_USER: &str =
    "install -m 0644 2-provider/sysusers.conf /etc/sysusers.d/vault-kube-kms.conf";
const MAKE_USER: &str = "systemd-sysusers vault-kube-kms.conf";
/// Here are the manifest and the certificates for etcd.
const ONCE_ON_A_NODE: &str = "once for the cluster, on a control-plane node";
const EACH: &str = "on each control-plane node";

/// Returns the steps for `answers`.
#[must_use]
pub fn steps(answers: &Answers) -> Vec<Step> {
    let mut steps = vec![keeper(answers), provider(answers), serves(answers)];
    if answers.begin == Begin::Read {
        steps.push(Step {
            id: StepId::Read,
            title: "The API server can read with the provider",
            at: EACH,
            why: "No API server writes with the provider yet. The flags and mounts of \
                  patches/kube-apiserver0+json.yaml make the API server use the file: with kubeadm, \
                  give the directory to --patches of init, join or upgrade; otherwise add them by \
                  hand. The kubelet starts the API server again when its manifest changes. **Every** \
                  API server must have this stage before one gets the next stage. If another \
                  provider encrypts these resources already, put it in place of `identity` in the \
                  files."
                .to_owned(),
            commands: stage("1-read.yaml", true),
        });
    }
    let patch = answers.begin == Begin::Write;
    steps.push(Step {
        id: StepId::Write,
        title: "The API server writes with the provider",
        at: EACH,
        why: if patch {
            "This is for a cluster with one API server and no data. Make the API server use the file \
             as patches/kube-apiserver0+json.yaml shows."
        } else {
            "New and changed objects are encrypted. The API server reads the changed file by itself \
             (--encryption-provider-config-automatic-reload), and looks for a change once a minute. \
             Wait two minutes after the last node."
        }
        .to_owned(),
        commands: stage("2-write.yaml", patch),
    });
    steps.push(Step {
        id: StepId::Rewrite,
        title: "Every object is stored again",
        at: ONCE_ON_A_NODE,
        why: "Type it at the earliest two minutes after the last API server got the stage above. \
              Objects from before are still in their old form. This stores each of them again, and \
              then reads from etcd how each one is stored. Do not go on before it says that nothing \
              is left and shows what it read from etcd: without etcd it cannot see an object in clear \
              text, and the next step makes such objects unreadable. If the API server has no such \
              manifest, give --etcd-servers and the certificates for etcd instead."
            .to_owned(),
        commands: vec![format!(
            "vault-kube-kmsctl rewrite --resource={} --api-server-manifest={}",
            answers.resources.join(","),
            super::API_SERVER_MANIFEST
        )],
    });
    steps.push(Step {
        id: StepId::Only,
        title: "The API server refuses clear text",
        at: EACH,
        why: "After the restore of a backup of etcd from before the step above, go back to \
              2-write.yaml."
            .to_owned(),
        commands: stage("3-only.yaml", false),
    });
    steps
}

fn stage(file: &str, first: bool) -> Vec<String> {
    let directory = ENCRYPTION_CONFIG.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut commands = Vec::new();
    if first {
        commands.push(format!("install -d -m 0700 {directory}"));
    }
    commands.push(format!("install -m 0600 3-api-server/{file} {ENCRYPTION_CONFIG}"));
    if first {
        commands.push(format!("$EDITOR {}", super::API_SERVER_MANIFEST));
    }
    commands.push("kubectl get --raw /readyz/kms-providers".to_owned());
    commands
}

fn keeper(answers: &Answers) -> Step {
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

/// A file that a node needs in the directory of the settings.
struct Credential {
    /// Its name where it was made.
    name: String,
    /// Its path on the node, as its flag names it.
    path: String,
}

/// Returns the files that a node needs in the directory of the settings, as their flags name them.
fn credentials(answers: &Answers) -> Vec<Credential> {
    let is_there = |path: &str| {
        path.strip_prefix(SETTINGS_DIRECTORY).is_some_and(|rest| rest.starts_with('/'))
    };
    // The provider itself writes this file.
    let is_needed = |flag: &str| flag != "approle-secret-id-cache";
    let flags = answers.flags.iter().filter(|(flag, path)| is_needed(flag) && is_there(path));
    let credential = |(flag, path): (&String, &String)| {
        let name = match flag.as_str() {
            // setup.sh gives these names.
            "approle-role-id-path" => "role-id",
            "approle-secret-id-path" => "secret-id",
            _ => file_name(path),
        };
        Credential { name: name.to_owned(), path: path.clone() }
    };
    flags.map(credential).collect()
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Returns the files that the step "provider" puts on a node, each with the file of the installation
/// that it must be equal to. Credentials have none.
#[must_use]
pub fn provider_files(answers: &Answers) -> Vec<(Option<String>, String)> {
    let (from, to) = match answers.form {
        Form::StaticPod => {
            ("2-provider/vault-kube-kms.yaml", "/etc/kubernetes/manifests/vault-kube-kms.yaml")
        }
        Form::Systemd => {
            ("2-provider/vault-kube-kms.env", "/etc/vault-kube-kms/vault-kube-kms.env")
        }
    };
    let settings = (Some(from.to_owned()), to.to_owned());
    let credentials = credentials(answers).into_iter().map(|of| (None, of.path));
    std::iter::once(settings).chain(credentials).collect()
}

fn provider(answers: &Answers) -> Step {
    let needed = credentials(answers);
    let names: Vec<&str> = needed.iter().map(|of| of.name.as_str()).collect();
    let mut copy = String::new();
    if !names.is_empty() {
        let _infallible =
            write!(copy, "Copy this directory and the files {} to the node", names.join(", "));
        let authority = answers.value("tls-ca-file");
        if needed.iter().any(|of| of.path == authority) {
            let name = file_name(&authority);
            let _infallible = write!(copy, "; {name} is the keeper's certificate authority");
        }
        copy.push_str(". Type the commands where they are. ");
    }
    let mut directories: Vec<_> = needed
        .iter()
        .filter_map(|of| of.path.rsplit_once('/'))
        .map(|(directory, _)| directory)
        .filter(|directory| *directory != SETTINGS_DIRECTORY)
        .collect();
    directories.sort_unstable();
    directories.dedup();
    let directories =
        directories.into_iter().map(|directory| format!("install -d -m 0755 {directory}"));
    // The commands that put the credentials on the node, as the user and with the mode of `options`.
    let install = |options: &str| -> Vec<String> {
        let files = needed.iter().map(|of| format!("install {options} {} {}", of.name, of.path));
        directories.chain(files).collect()
    };
    let (why, commands) = match answers.form {
        Form::StaticPod => {
            let mut commands = vec![
                "install -m 0644 2-provider/tmpfiles.conf /etc/tmpfiles.d/vault-kube-kms.conf"
                    .to_owned(),
                "systemd-tmpfiles --create vault-kube-kms.conf".to_owned(),
                format!("install -d -m 0755 {SETTINGS_DIRECTORY}"),
            ];
            commands.extend(install("-o 65532 -g 65532 -m 0400"));
            commands.push(
                "install -m 0600 2-provider/vault-kube-kms.yaml /etc/kubernetes/manifests"
                    .to_owned(),
            );
            ("The kubelet starts the Pod without an API server.", commands)
        }
        Form::Systemd => {
            let mut commands = vec![
                INSTALL_PROGRAM.to_owned(),
                "install -m 0644 2-provider/vault-kube-kms.service /etc/systemd/system".to_owned(),
                INSTALL_USER.to_owned(),
                "install -m 0644 2-provider/tmpfiles.conf /etc/tmpfiles.d/vault-kube-kms.conf"
                    .to_owned(),
                MAKE_USER.to_owned(),
                "systemd-tmpfiles --create vault-kube-kms.conf".to_owned(),
            ];
            commands.extend(install("-o vault-kube-kms -m 0600"));
            commands.push(format!(
                "install -m 0640 -g vault-kube-kms 2-provider/vault-kube-kms.env {SETTINGS_DIRECTORY}"
            ));
            commands.push("systemctl daemon-reload".to_owned());
            commands.push("systemctl enable --now vault-kube-kms".to_owned());
            (
                "With the deb or the rpm of the provider, leave out the first six commands: the \
                 package has these files.",
                commands,
            )
        }
    };
    let why = format!("{copy}{why}");
    Step { id: StepId::Provider, title: "The provider is installed", at: EACH, why, commands }
}

fn serves(answers: &Answers) -> Step {
    let program = match answers.form {
        Form::StaticPod => format!("vault-kube-kms check {}", answers.arguments().join(" ")),
        Form::Systemd => "set -a; . /etc/vault-kube-kms/vault-kube-kms.env; \
                          vault-kube-kms check --listen-address=unix:///run/vault-kube-kms/vault-kube-kms.sock"
            .to_owned(),
    };
    Step {
        id: StepId::Serves,
        title: "The provider works",
        at: EACH,
        why:
            "The provider is ready when its socket exists, and healthy when it has proven its key. \
              `check` names what is wrong, with a remedy."
                .to_owned(),
        commands: vec![
            program,
            "curl -s http://127.0.0.1:9090/metrics | grep ^vault_kube_kms_healthy".to_owned(),
        ],
    }
}

/// Returns the text of the file `README.md`: the steps with their commands.
#[must_use]
pub fn readme(answers: &Answers) -> String {
    let mut text = "# Encrypt a cluster with vault-kube-kms\n\n\
        For the person who installs it. `vault-kube-kmsctl init` wrote this directory. Type the commands of \
        each step in this directory, in this order. After each step, type on each node:\n\n\
        ```sh\nvault-kube-kmsctl init --check .\n```\n"
        .to_owned();
    for (index, step) in steps(answers).iter().enumerate() {
        let Step { title, at, why, commands, .. } = step;
        let number = index.saturating_add(1);
        let commands = commands.join("\n");
        let _infallible =
            write!(text, "\n## {number}. {title}\n\nType {at}. {why}\n\n```sh\n{commands}\n```\n");
    }
    text.push_str(
        "\n## Protect and watch it\n\n`4-protect` keeps Pods away from the provider's directories, and has the \
         alerts and the scrape configuration for Prometheus.\n\n```sh\nkubectl apply -f \
         4-protect/admission-policy.yaml\n```\n",
    );
    text
}
